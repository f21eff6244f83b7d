"""Import and export of users as files: ``birthday import`` and ``birthday export``.

The steps of an import: ``source`` (bytes to lines), ``cells`` and ``records`` (lines to rows), ``importing`` (rows to
users, batch by batch), ``report`` (rejected rows). The commands in ``cli`` put them together.
"""
