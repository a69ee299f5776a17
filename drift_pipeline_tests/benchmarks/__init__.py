"""Measurements that are run by hand: `python -m drift_pipeline_tests.benchmarks.detection`."""
