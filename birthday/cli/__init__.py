"""The command line: one module for each group of commands, and ``render/`` for everything that prints."""
