"""Makes everything from the settings: what is opened, what is shared, and the parts of each role.

The service, the commands and the tests all use it, so that each thing is put together in one place.
"""
