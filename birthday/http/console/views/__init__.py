"""The pages, a module for each group. Each has its ``VIEWS``, which ``frame.py`` collects."""
