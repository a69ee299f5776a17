"""Real servers and tools for the tests, made once in a cache folder outside the tree (DRIFT_PARTS)."""
