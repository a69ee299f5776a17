"""Monitoring: one champion, its rows and labels as they land, and the baseline that they are held against.

`baselines.py` says what a champion is held against, and `rebaselining.py` when that changes. `champion_monitor.py`
reads what landed: `counting.py` counts it, `profiles.py` keeps the counts in the lake, `sampling.py` has samples of
whole days. What is judged of it, and how, is `detection/judging`; `kpi_history.py` keeps what each tick said.
"""
