"""Counting: rows to counters on frozen bins, slices of time, and windows as their sums."""
