"""The queue in PostgreSQL: the table ``queue_messages``, rows of which consumers hold under leases.

A row is handed out by an UPDATE that gives it to one consumer until an instant of the database's clock, which the
consumer moves on for as long as it lives. An ack deletes the row, a reject leaves it as a dead letter, and a lease that
runs out, or a consumer that leaves, puts it back.
"""

from birthday.broker.postgres.broker import PostgresBroker

__all__ = ["PostgresBroker"]
