"""Errors of AMQP that do not mean that the server is away."""

import ssl
from typing import Final

import aiormq
from aiormq.exceptions import AuthenticationError, ChannelAccessRefused, InvalidFrameError, ProbableAuthenticationError

from birthday.errors import UnavailableError

_REFUSALS: Final = (
    AuthenticationError,
    ChannelAccessRefused,
    InvalidFrameError,
    ProbableAuthenticationError,
    aiormq.ChannelPreconditionFailed,
    ssl.SSLError,
)
"""A wrong password, virtual host, topology or certificate. For a virtual host aiormq raises ``InvalidFrameError``."""


class NoAnswerError(UnavailableError):
    """The server has not answered in time."""

    def __init__(self, where: str, seconds: float) -> None:
        super().__init__("queue", f"{where} did not answer within {seconds:g} s")


class MissingError(UnavailableError):
    """An exchange or a queue of ours is missing: it was deleted, or the server lost it."""

    def __init__(self, message: str) -> None:
        super().__init__("queue", message)


def is_refusal(error: BaseException) -> bool:
    """Say whether the server has refused us, so that waiting does not help."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, _REFUSALS):
        cause = cause.__cause__
    return cause is not None
