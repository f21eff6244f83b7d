"""Birthday Scheduler: one message per user and year, at 09:00 where the user lives.

Read ``service.py`` first, from top to bottom. Then read one module for each step, in the order in which a message
passes them: ``scheduler/planner.py``, ``scheduler/dispatcher.py``, ``worker/pipeline.py``, ``scheduler/janitor.py``.
Only ``core/occasion.py`` decides when a birthday is.
"""
