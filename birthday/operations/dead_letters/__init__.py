"""Dead letters: what an operator does about messages that failed, and about what nobody could read.

A message that failed is a row in ``message_logs``; the dead-letter queue has a copy of its id, or several, or none. It
may also have what is no message of ours. ``letters`` puts the two together; ``requeue`` gives messages another start
(the API does that as well), ``removal`` clears the queue, ``archive`` keeps what it removes, ``listing`` only looks.
"""
