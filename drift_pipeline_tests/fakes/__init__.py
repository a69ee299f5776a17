"""Stand-ins that are real servers or files, named for what they stand in for."""
