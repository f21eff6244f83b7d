"""Use cases that command line, API and console share. No HTTP here, and nothing is printed."""
