"""The same loop over a recorded history, on a virtual clock.

`replay.py` plays it: `options.py` how, `home.py` the backends, `traffic.py` who answers the rows, `seen.py` what came
of it. `summary.py` makes the figures of that and `folder.py` reads them again; `report.py`, `diff.py`, `comparison.py`
and `calibration.py` make pages (`page.py`, `charts/`, `figures.py`). `demo.py` is a replay of a made-up history.
"""
