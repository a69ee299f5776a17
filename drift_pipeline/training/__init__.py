"""Make a better one: the labelled rows, the search over them, and the gates that the result has to pass."""
