"""The same loop over a recorded history, on a virtual clock."""
