"""The live page: what a replay's report is, of the models of a home that lives, drawn by the same code and served."""
