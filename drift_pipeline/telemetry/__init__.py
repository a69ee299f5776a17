"""What the model saw and said: reading histories, the lake, synthetic traffic."""
