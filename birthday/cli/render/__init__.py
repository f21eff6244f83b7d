"""How results of operations look on a terminal, or as JSON for a program."""
