"""Retraining in three steps, each of which may run in a process of its own: pin the rows, fit on them, prove on them.

What one step hands to the next is in the control store (`training`, `candidate`) and the registry, never in memory:
`trainings.py` reads it and writes it.
"""
