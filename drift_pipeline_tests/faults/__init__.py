"""Seeded faults through the whole loop, on a clock that is set by hand."""
