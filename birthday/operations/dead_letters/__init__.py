"""Dead letters: what an operator can do with failed messages, and with letters that are no message of ours.

A failed message is a row in ``message_logs``. The dead-letter queue has no copy of its id, one, or several. It may also
have letters that are no message of ours. ``letters`` finds the message of each letter, ``requeue`` sends failed
messages again (for the API too), ``removal`` removes letters from the queue, ``archive`` keeps removed letters, and
``listing`` only reads.
"""
