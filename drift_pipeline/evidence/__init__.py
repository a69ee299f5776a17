"""Prove it: what an auditor runs over an installation or a replay."""
