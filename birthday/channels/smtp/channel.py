"""E-mail: one message to one recipient for each attempt, judged by the mail server's answers (RFC 5321, section 4.2).

SMTP has no idempotency key. If the answer to the final dot is lost, nobody can tell whether the e-mail was accepted.
"""

import asyncio
import re
import ssl
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address
from pathlib import Path
from typing import Final

from aiosmtplib import SMTPException, SMTPResponseException
from yarl import URL

from birthday.channels.breaker import CircuitBreaker
from birthday.channels.idle import IdleConnections
from birthday.channels.message_service.route import Network, Route, UnreachableError, explain, lacking
from birthday.channels.outcomes import Delivered, Greeting, Outcome, Permanent, Temporary, Unable
from birthday.channels.smtp.letter import compose
from birthday.channels.smtp.session import (
    ABOUT_EVERYBODY,
    CLOSING,
    NotOfferedError,
    Progress,
    SmtpSession,
    Step,
    open_session,
)
from birthday.clock import Clock
from birthday.config import SmtpServer, Tls
from birthday.core.message import ErrorType
from birthday.errors import UnavailableError

_TEMPORARY: Final = range(400, 500)
_PERMANENT: Final = range(500, 600)
_BAD_ADDRESS: Final = frozenset({501, 553})
_ENHANCED: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")
_ABOUT_US: Final = re.compile(r"5\.7\.|(?i:.*\brelay)")
"""Beginnings of refusals that may be meant for every recipient: of policy (RFC 3463), or because we may not relay."""
_COMPOSING: Final = (AttributeError, LookupError, MessageError, TypeError, ValueError)
"""What the email package raises for a text or an address that it cannot write."""
_FIRST_PATIENCE: Final = timedelta(seconds=5)
_LONGEST_PATIENCE: Final = timedelta(minutes=10)
_LONGEST_CHECK: Final = timedelta(seconds=5)


class SmtpChannel:
    """Sends greetings as e-mails. It never retries: the caller decides about every attempt."""

    api = "smtp"

    def __init__(
        self,
        server: SmtpServer,
        sender: Address,
        authorities: Path | None,
        concurrency: int,
        timeout: timedelta,
        clock: Clock,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """Keep up to ``concurrency`` connections; ``timeout`` bounds one attempt, connecting included.

        Raises:
            OSError: the file of certificate ``authorities`` cannot be read, or holds none.
        """
        self.breaker = breaker
        self._server = server
        self._sender = sender
        self._route = Route(URL.build(scheme="smtp", host=server.host, port=server.port), Network())
        self._tls = None if server.tls is Tls.NONE else ssl.create_default_context(cafile=authorities)
        self._idle = IdleConnections[SmtpSession](concurrency)
        self._timeout = timeout
        self._clock = clock

    async def send(self, greeting: Greeting) -> Outcome:
        """Try once, within the timeout. Never raises because of the other side."""
        progress = Progress()
        try:
            letter = compose(greeting, self._sender, self._clock.now())
        except _COMPOSING as error:
            # The text of the error may quote what cannot be written.
            reason = f"no e-mail can be made of this text or address: {type(error).__name__}"
            return Permanent(ErrorType.VALIDATION_ERROR, reason, handed_over=False)
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await self._send(greeting, letter, progress)
        except TimeoutError:
            reason = f"the mail server did not answer to {progress.step} within {self._timeout.total_seconds():g} s"
            if progress.step is Step.DOT:
                return Temporary(ErrorType.TIMEOUT, reason, answer_lost=True)
            return _not_arrived(reason)
        except SMTPResponseException as error:
            return _outcome(error.code, error.message, progress.step, greeting.attempt)
        except UnreachableError as error:
            return Unable(f"cannot connect: {error}", error.lacks) if error.lacks else _not_arrived(str(error))
        except NotOfferedError as error:
            return _not_arrived(f"the mail server cannot be used: {error}", refused=True)
        except (SMTPException, OSError) as error:
            return _broken(error, progress.step)

    async def _send(self, greeting: Greeting, letter: bytes, progress: Progress) -> Outcome:
        utf8 = not greeting.email.isascii()
        session = await self._begin(progress, utf8=utf8)
        if session is None:
            return Permanent(ErrorType.VALIDATION_ERROR, "the mail server offers no SMTPUTF8, which the address needs")
        try:
            return Delivered(await session.finish(greeting.email, letter, progress))
        finally:
            self._idle.keep(session)

    async def _begin(self, progress: Progress, *, utf8: bool) -> SmtpSession | None:
        """Return a session in which an e-mail has begun, or None if the server lacks SMTPUTF8.

        A connection from before may have been closed meanwhile, or serve only so many e-mails. Then a new one is opened
        at once: nothing has been sent.
        """
        while True:
            used = self._idle.take()
            session = used or await open_session(self._server, self._route, self._tls, progress)
            if utf8 and not session.supports("smtputf8"):
                self._idle.keep(session)
                return None
            try:
                await session.begin(self._sender.addr_spec, progress, utf8=utf8)
            except SMTPException:
                session.abort()
                if used is None:
                    raise
            except BaseException:
                session.abort()
                raise
            else:
                return session

    @property
    def _where(self) -> str:
        return f"{'smtps' if self._server.tls is Tls.IMPLICIT else 'smtp'}://{self._server.host}:{self._server.port}"

    async def check(self) -> None:
        """Make sure that the server accepts a connection and the login. The connection is kept for the next use."""
        await self._try()

    async def try_key(self) -> str:
        """Test login and sender without sending an e-mail.

        Returns:
            The result, in words.

        Raises:
            UnavailableError: if one of them is refused, or there is no answer.
        """
        await self._try()
        return f"{'no login is set' if self._server.user is None else 'the login is accepted'}; so is the sender"

    async def _try(self) -> None:
        progress = Progress()
        timeout = min(self._timeout, _LONGEST_CHECK)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                session = await self._begin(progress, utf8=False)
                if session is not None:
                    try:
                        await session.reset()
                    finally:
                        self._idle.keep(session)
        except TimeoutError:
            seconds = timeout.total_seconds()
            raise UnavailableError("channel", f"{self._where}: no answer to {progress.step} in {seconds:g} s") from None
        except SMTPResponseException as error:
            answer = _answer(error.code, error.message)
            raise UnavailableError("channel", f"{self._where}: {progress.step} is answered {answer}") from None
        except (UnreachableError, NotOfferedError) as error:
            raise UnavailableError("channel", f"{self._where}: {error}") from None
        except (SMTPException, OSError) as error:
            raise UnavailableError("channel", f"{self._where}: {_why(error)}") from None

    async def close(self) -> None:
        """Close the connections."""
        self._idle.close()


def _outcome(code: int, text: str, step: Step, attempt: int) -> Outcome:
    """Return what an answer means. The reason never quotes the server, which may repeat the e-mail address."""
    reason = f"the mail server answered {_answer(code, text)} to {step}"
    if code == CLOSING:
        return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, status=code, handed_over=False)
    if code in _TEMPORARY:
        if step in ABOUT_EVERYBODY:
            return _not_arrived(reason, code)
        # Greylisting lasts for minutes, and nobody says how many.
        wait = min(_FIRST_PATIENCE * 4 ** min(attempt - 1, 10), _LONGEST_PATIENCE)
        return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, wait, status=code, personal=True)
    if code in _PERMANENT:
        if step in ABOUT_EVERYBODY:
            return _not_arrived(reason, code, refused=True)
        error_type = ErrorType.VALIDATION_ERROR if code in _BAD_ADDRESS else ErrorType.PERMANENT_FAILURE
        return Permanent(error_type, reason, code, refused=code == 530 or _ABOUT_US.match(text) is not None)
    reason = f"the mail server gave an answer to {step} that could not be understood"
    if step is Step.DOT:
        return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, answer_lost=True)
    return _not_arrived(reason)


def _answer(code: int, text: str) -> str:
    """Return the status, with the enhanced status (RFC 3463) if there is one."""
    enhanced = _ENHANCED.match(text)
    return f"{code} {enhanced[0]}" if enhanced else str(code)


def _not_arrived(reason: str, status: int | None = None, *, refused: bool = False) -> Temporary:
    return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, status=status, refused=refused, handed_over=False)


def _broken(error: SMTPException | OSError, step: Step) -> Outcome:
    """Return what it means that the connection cannot be made, or broke."""
    if step is Step.DOT:
        reason = f"the connection broke before the answer to {step}: {_why(error)}"
        return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, answer_lost=True)
    cause = error.__cause__ if isinstance(error, SMTPException) else error
    lacks = lacking(cause) if isinstance(cause, OSError) else None
    if lacks:
        return Unable(f"cannot connect: {_why(error)}", lacks)
    during = "cannot connect" if step is Step.CONNECT else f"the connection broke during {step}"
    return _not_arrived(f"{during}: {_why(error)}")


def _why(error: SMTPException | OSError) -> str:
    cause: BaseException | None = error
    while isinstance(cause, SMTPException):
        # aiosmtplib puts the host and port into the text of its own errors, and keeps that of the system as the cause.
        cause = cause.__cause__
    return explain(cause) if isinstance(cause, OSError) else "it was closed by the other side"
