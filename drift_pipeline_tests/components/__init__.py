"""The Dagster skin: what its assets show is what the loop below it says."""
