"""Releasing: from a candidate whose gates passed to a champion, or back; each step in one transaction.

A step that somebody else was faster at raises ConflictError and changes nothing: rollback and promotion at once leave
exactly one of them done, and the other is told. `rollouts.py` has where a rollout stands and writes where it moves,
`starting.py`, `advancing.py` and `rolling_back.py` are the steps, `approvals.py` hears the people.
"""
