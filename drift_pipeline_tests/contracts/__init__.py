"""One suite a protocol; every implementation passes it."""
