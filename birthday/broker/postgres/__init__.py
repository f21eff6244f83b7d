"""The queue in PostgreSQL: the table ``queue_messages``, whose rows consumers hold under leases.

An UPDATE gives a row to one consumer until an instant of the database's clock. The consumer extends this lease for as
long as it lives. An ack deletes the row, and a reject turns it into a dead letter. If the lease runs out, or the
consumer leaves, the row can be consumed again.
"""

from birthday.broker.postgres.broker import PostgresBroker

__all__ = ["PostgresBroker"]
