"""Is the monitor calm on healthy data? Alarms measured on a model's own history, and the thresholds it asks for."""
