"""Comparing: any two tables, without time, by the statistics and verdicts of the live loop."""
