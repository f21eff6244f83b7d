"""Use cases that commands and API share. They know no HTTP and print nothing.

Each raises ``UnavailableError`` if the database, or the queue that it needs, cannot be used.
"""
