"""Makes everything from the settings: connections, what the roles share, and the parts of each role.

The service, the commands and the tests all use it, so that each thing is put together in one place.
"""
