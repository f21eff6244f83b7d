"""Use cases that commands and API share. They know no HTTP and print nothing."""
