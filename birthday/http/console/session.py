"""Sessions: who signs in with an API key gets a signed cookie that is bound to this key.

The cookie does not have the key. The key is looked up at each request, so a session ends as soon as this process knows
that its key was revoked or has expired.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from aiohttp import web

from birthday.config import Scope
from birthday.http.console.tokens import Tokens
from birthday.http.console.view import ROOT, Visitor, is_refresh
from birthday.operations.keys import Keys, KnownKey

COOKIE: Final = "birthday_session"
IDLE: Final = timedelta(minutes=30)
"""How long a session lasts after its last request; requests that only refresh an open page do not count."""
LONGEST: Final = timedelta(hours=12)
"""How long a session lasts at most."""
RENEW_EVERY: Final = timedelta(minutes=1)
_PURPOSE: Final = "session"


@dataclass(frozen=True, slots=True)
class Session:
    """One session: the mark of its key, when it began and was last used, and whether the browser came by HTTPS."""

    mark: str
    began_at: float
    used_at: float
    secure: bool

    @classmethod
    def read(cls, content: object) -> Self | None:
        """Return the session that ``pack`` wrote; None for anything else, such as another release's."""
        match content:
            case [str(mark), int() | float() as began_at, int() | float() as used_at, bool(secure)]:
                return cls(mark, began_at, used_at, secure)
            case _:
                return None

    def pack(self) -> list[object]:
        """Return what JSON can express."""
        return [self.mark, self.began_at, self.used_at, self.secure]

    def has_ended(self, now: datetime) -> bool:
        """Say whether a limit is reached."""
        at = now.timestamp()
        return at - self.began_at >= LONGEST.total_seconds() or at - self.used_at >= IDLE.total_seconds()


_SESSION: web.RequestKey[Session] = web.RequestKey("session", Session)


class Sessions:
    """Makes, reads and renews the cookies."""

    def __init__(self, keys: Keys, tokens: Tokens) -> None:
        self._keys = keys
        self._tokens = tokens

    def find(self, request: web.Request, now: datetime) -> Visitor | None:
        """Return who sends a request; None if nobody has signed in. Without any key, everybody may do everything."""
        if not self._keys.required:
            return Visitor(None, Scope.ADMIN)
        token = request.cookies.get(COOKIE)
        session = Session.read(self._tokens.read(_PURPOSE, token)) if token else None
        if session is None or session.has_ended(now):
            return None
        key = self._keys.find_marked(session.mark)
        if key is None or not key.works(now):
            return None
        self._keys.note_use(key)
        request[_SESSION] = session
        return Visitor(key.name, key.scope)

    def begin(self, response: web.Response, key: KnownKey, now: datetime, *, secure: bool) -> None:
        """Begin a session with a key."""
        at = round(now.timestamp())
        self._set(response, Session(key.mark, at, at, secure))

    def renew(self, request: web.Request, response: web.StreamResponse, now: datetime) -> None:
        """Note in the cookie that the session is used, unless that was done not long ago."""
        session, at = request.get(_SESSION), round(now.timestamp())
        if session is None or is_refresh(request) or response.prepared:
            return
        if at - session.used_at >= RENEW_EVERY.total_seconds():
            self._set(response, replace(session, used_at=at))

    def _set(self, response: web.StreamResponse, session: Session) -> None:
        token = self._tokens.make(_PURPOSE, session.pack())
        response.set_cookie(COOKIE, token, path=ROOT, httponly=True, samesite="Strict", secure=session.secure or None)
