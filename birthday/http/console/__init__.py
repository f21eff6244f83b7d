"""The console: web pages under /console for operators, made on the server from the operations that the API uses.

``frame.py`` collects the views and decides who may use them. Each module in ``views/`` is a group of pages.
"""
