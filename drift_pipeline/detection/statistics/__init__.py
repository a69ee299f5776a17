"""One statistic a file: pure functions on arrays of counts, without clock, I/O or logging."""
