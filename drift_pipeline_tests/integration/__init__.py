"""Real processes, HTTP and Dagster's daemon, together."""
