"""The control store's tables: state, audit chain, outbox, memory. `seq` names the audit record a row came with."""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

_Counter = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is SQLite's rowid and counts by itself

_Key = String().with_variant(String(collation="C"), "postgresql")  # compared by bytes, whatever the database's locale

BASELINE = "0001"  # the schema's revision; the next one brings Alembic's migrations/, which find theirs from here
MOVED = "this control store was moved to"  # what a store that was moved says to whoever still writes to it

metadata = MetaData()

# Alembic's own table: one row, the revision of these tables.
alembic_version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

state = Table(
    "state",
    metadata,
    Column("kind", _Key, primary_key=True),
    Column("key", _Key, primary_key=True),
    Column("body", Text, nullable=False),
    Column("generation", _Counter, nullable=False),
    Column("seq", _Counter, nullable=False),
)

# What a tick remembers for the next one: counters and the heartbeat, which are no transition and are not audited.
memory = Table(
    "memory",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("body", Text, nullable=False),
    Column("generation", _Counter, nullable=False),
)

# The body is the canonical JSON of the whole record without its hash: what is stored is what was hashed.
audit = Table(
    "audit",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("position", _Counter, primary_key=True),
    Column("id", _Key, nullable=False, unique=True),
    Column("topic", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("seq", _Counter, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("error", Text),
    Column("delivered_at", String),
    Index("outbox_pending", "delivered_at", "position"),
)
