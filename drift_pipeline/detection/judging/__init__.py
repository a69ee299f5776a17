"""Judging: a window beside its reference, from statistics to the verdict of each column and KPI."""
