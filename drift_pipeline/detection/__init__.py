"""Is it still the same world? Profiles on frozen bins, statistics, verdicts."""
