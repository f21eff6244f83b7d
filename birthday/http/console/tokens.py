"""Signed texts that browsers keep for us: sessions and notices. Each process of an installation accepts them."""

import hashlib
from typing import Final

import asyncpg
from itsdangerous import BadData, URLSafeSerializer

from birthday.store.connection import borrow
from birthday.store.suppressions import read_links

_SIGNER: Final = {"key_derivation": "hmac", "digest_method": hashlib.sha256}


class Tokens:
    """Makes and reads signed texts. ``open`` reads the secret of the installation from the database once."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._secret: bytes | None = None

    async def open(self) -> None:
        """Read the secret, unless that was done.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        if self._secret is None:
            async with borrow(self._pool) as connection:
                # A signature of one purpose is none of another: the purpose is part of the key.
                self._secret = (await read_links(connection)).key

    def make(self, purpose: str, content: object) -> str:
        """Return ``content``, which JSON can express, as text that only this installation can make."""
        return self._serializer(purpose).dumps(content)

    def read(self, purpose: str, text: str) -> object | None:
        """Return the content of a text; None if ``make`` did not make it for this purpose, or without a secret."""
        if self._secret is None:
            return None
        try:
            content: object = self._serializer(purpose).loads(text)
        except BadData:
            return None
        return content

    def _serializer(self, purpose: str) -> URLSafeSerializer:
        if self._secret is None:
            raise RuntimeError("the secret is not read yet")
        return URLSafeSerializer(self._secret, salt=f"console.{purpose}".encode(), signer_kwargs=_SIGNER)
