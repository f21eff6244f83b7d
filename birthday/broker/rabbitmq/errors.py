"""What AMQP can tell besides that the server is away."""

from birthday.errors import UnavailableError


class MissingError(UnavailableError):
    """An exchange or a queue of ours is gone: somebody deleted it, or the server has lost it."""

    def __init__(self, message: str) -> None:
        """Say it of the queue."""
        super().__init__("queue", message)
