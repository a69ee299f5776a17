"""A replay's home: its own backends, and keys that stand in for the people who would approve."""

import math
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from drift_pipeline.alerts.channels.log import LogChannel
from drift_pipeline.clock import Clock
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.trust import appoint, approvers, open_store
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.evidence.gitops.publishing import publish
from drift_pipeline.evidence.verification import keep_policy
from drift_pipeline.loop import RECORDED, Backends, Loop, Trust
from drift_pipeline.loop.declared import declared, rules_in_force
from drift_pipeline.loop.lineage import deliver_lineage
from drift_pipeline.policy.engines import read_bundle
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.replays.options import Options
from drift_pipeline.rollout.approval import REPLAY, REPLAY_ONLY, sign_approval, write_approval
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

FLUSH_ROWS = 4000
SIGNED_AT_THE_END = {"checkpoint_records": 10**9, "checkpoint_seconds": 10**9}  # and at what matters most


class ReplayHome:
    """Below `settings.home`, which must exist and be empty; close it in the end."""

    def __init__(self, spec: ModelSpec, settings: Settings, options: Options, clock: Clock) -> None:
        self._spec, self._settings, self._options, self._clock = spec, settings, options, clock
        for folder in (settings.keys, settings.gitops):
            folder.mkdir(parents=True, exist_ok=True)
        self._trainer = Signer.generate(REPLAY_ONLY, "the replay's trainer")
        wanted = [role for role, count in spec.rollout.wanted.items() for _ in range(count)]
        people = [(f"the replay's approver {number}", role) for number, role in enumerate(wanted, 1)]
        self._approvers = [(Signer.generate(REPLAY_ONLY, person), role) for person, role in people]
        rules = read_bundle(options.policy) if options.policy else read_bundle()
        keep_policy(settings, rules)
        self.lake = Lake(settings.lake / spec.name, source="replay", flush_rows=FLUSH_ROWS)
        self.store = open_store(settings.model_copy(update=SIGNED_AT_THE_END), clock, self._trainer)
        rules_in_force(self.store, rules.digest)
        for signer, role in self._approvers:
            appoint(settings, self.store, signer.public, "replay", REPLAY_ONLY, [role])
        self._registry = LocalRegistry(settings.registry)
        self._engine = EmbeddedEngine(options.policy)  # last: nobody would end it where something after it fails

    @property
    def policy_digest(self) -> str:
        return self._engine.digest

    def loop(self, progress: Callable[[str], None]) -> Loop:
        """The loop that is played."""
        alerts = LogChannel(self._settings.alerts)
        at = Backends(self.lake, self.store, self._registry, self._engine, alerts)
        keys = partial(approvers, self._settings, self.store)
        trust = Trust(self._settings.gitops, REPLAY, keys, self._trainer.key_id)
        step, seed = self._options.step, self._options.seed
        return Loop(self._spec, at, trust, self._clock, step=step, seed=seed, progress=progress)

    def declare(self) -> None:
        """Note the spec of what was adopted."""
        declared(self._settings, self.store, self._spec)

    def approve(self, digest: str, rollout: str, patience: timedelta) -> None:
        """What people do in production, here by keys that say of themselves that they are the replay's own."""
        now = self._clock.now()
        for signer, role in self._approvers:
            envelope = sign_approval(
                signer,
                model=self._spec.name,
                digest=digest,
                rollout=rollout,
                environment=REPLAY,
                trainer=self._trainer.key_id,
                reason="approved by the replay itself: every candidate that passed its gates and its shadow",
                at=now,
                expires=now + patience,
                role=role,
            )
            write_approval(self._settings.gitops, envelope)

    def document(self, digest: str) -> None:
        """The version's card as things stand: when it was proven or refused, and again at each step of its rollout."""
        if digest != RECORDED:
            now = self._clock.now()
            write_documents(self._settings, self.store, self._registry, self._spec, digest, now, REPLAY)

    def sign_checkpoint(self) -> None:
        """Sign the head of the audit chain, and commit it with what it names."""
        self.store.checkpoint()
        publish(self._settings, self.store, self._clock)

    def tell_lineage(self) -> None:
        """Of the whole history, as files, whatever the settings say of a backend: a replay reaches nobody."""
        settings, now = self._settings.model_copy(update={"lineage_url": ""}), self._clock.now()
        deliver_lineage(settings, self.store, {self._spec.name: self._spec}, now, seconds=math.inf, at_end=True)

    def close(self) -> None:
        """End the policy engine and the store; the lake is flushed by whoever played to its end."""
        self._engine.close()
        self.store.close()
