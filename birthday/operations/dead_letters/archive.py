"""An archive of dead letters as lines of JSON. A letter is on disk before it is removed from the queue."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from birthday.clock import Clock
from birthday.errors import FieldError, InvalidInputError, UnavailableError
from birthday.operations.dead_letters.letters import Found
from birthday.operations.dead_letters.records import archived, encode

STDOUT: Final = "-"


class Archive:
    """Writes without a buffer to a descriptor that the caller closes. Once ``add`` returns, the letters are written."""

    def __init__(self, descriptor: int, name: str, clock: Clock) -> None:
        """Take the descriptor, and its name for error messages."""
        self.count = 0
        self._descriptor = descriptor
        self._name = name
        self._clock = clock

    def add(self, letters: Sequence[Found]) -> None:
        """Write these letters; sync them to disk if the target is a file.

        Raises:
            UnavailableError: if that fails. Some letters may be written all the same.
        """
        if not letters:
            return
        now = self._clock.now()
        left = memoryview(b"".join(encode(archived(found, now)) for found in letters))
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            _sync(self._descriptor)
        except OSError as error:
            raise UnavailableError("archive", f"{self._name} cannot be written: {error.strerror}") from None
        self.count += len(letters)


@contextmanager
def open_archive(name: str, stdout: int, clock: Clock) -> Iterator[Archive]:
    """Create a new file, readable by its owner only; for ``-``, use the descriptor ``stdout``.

    A file to which nothing was added is removed.

    Raises:
        InvalidInputError: if the file exists already, or cannot be created.
    """
    if name == STDOUT:
        yield Archive(stdout, "standard output", clock)
        return
    path = Path(name)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
    except FileExistsError:
        raise InvalidInputError(FieldError("", f"{name} exists; a file that does not exist is accepted")) from None
    except OSError as error:
        raise InvalidInputError(FieldError("", f"{name} cannot be written: {error.strerror}")) from None
    archive = Archive(descriptor, name, clock)
    try:
        _sync_directory(path.parent)
        yield archive
    finally:
        os.close(descriptor)
        if not archive.count:
            path.unlink()


def _sync(descriptor: int) -> None:
    # Pipes and terminals cannot be synced: fsync fails for them.
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    """Make sure that a new file is still there after a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
