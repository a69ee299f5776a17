"""Is it still the same world? Profiles on frozen bins, statistics, verdicts.

- `counting/`: rows to counters on frozen bins, slices of time, and windows as their sums
- `reference/`: what healthy looked like, frozen with a model version, and how much it varied by itself
- `statistics/`: one statistic a file, pure functions on arrays
- `judging/`: a window beside its reference, from statistics to the verdict of each column and KPI
- `comparing/`: any two tables, without time, by the same statistics and verdicts
- `calibration/`: is the monitor calm on healthy data, and the thresholds that a history asks for
- `report/`: a tick's findings as a page
"""
