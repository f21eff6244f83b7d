"""Compiles templates beside the event loop: what an author or an attacker has written may take up to a second."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from birthday.content import Template
from birthday.core.template import Source

_THREAD: Final = ThreadPoolExecutor(1, "templates")
"""One thread: each more would take the interpreter lock from the event loop once more."""


async def compile_template(source: Source, locale: str) -> Template:
    """Compile a template of a locale.

    Raises:
        InvalidInputError: with everything that is wrong with the source.
    """
    return await asyncio.get_running_loop().run_in_executor(_THREAD, Template, source, locale)
