"""An error of AMQP that does not mean that the server is away."""

from birthday.errors import UnavailableError


class MissingError(UnavailableError):
    """An exchange or a queue of ours is missing: it was deleted, or the server lost it."""

    def __init__(self, message: str) -> None:
        super().__init__("queue", message)
