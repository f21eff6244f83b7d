"""Users in and out as files: ``birthday import`` and ``birthday export``.

An import reads top to bottom: ``source`` (bytes and lines), ``records`` (lines to rows), ``importing`` (rows to users,
batch by batch), ``report`` and ``progress`` (what a person sees); ``console`` puts them together.
"""
