"""How results look: a table on a terminal, plain text in a pipe, a dict for JSON."""
