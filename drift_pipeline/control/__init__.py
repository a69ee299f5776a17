"""The control store: state, audit chain and outbox, changed in one transaction."""
