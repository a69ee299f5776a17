"""Who has to know? Alerts leave the outbox here, each at least once and known by its id."""
