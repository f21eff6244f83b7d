"""Birthday Scheduler: one message per user and year, at 09:00 where the user lives.

Read ``service.py`` first, from top to bottom; then the modules of one step each, in the order in which a
message passes them: ``scheduler/planner.py``, ``scheduler/dispatcher.py``, ``worker/pipeline.py``,
``scheduler/janitor.py``. The rule that says when a birthday is stands alone in ``core/occasion.py``.
"""
