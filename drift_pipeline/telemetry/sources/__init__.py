"""Where events come from: one file a way in."""
