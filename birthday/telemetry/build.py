"""Which build this is: the version, and the commit that it was made from.

Nothing here runs git, which a container and many hosts lack. Whoever builds an image says the commit (BIRTHDAY_COMMIT);
pip notes that of an installation from a repository; of a checkout that is installed as it is, git's files have it.
"""

import json
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

NAME: Final = "birthday-scheduler"
UNKNOWN: Final = "unknown"


def read_version() -> str:
    """Return the version of the package that is installed."""
    return version(NAME)


def find_commit(given: str | None) -> str:
    """Return the commit: the one ``given`` by whoever built this, or what the installation tells, or ``unknown``.

    A checkout may move on while a process runs, so ask once, at the start.
    """
    if given:
        return given
    try:
        origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
        if commit := origin.get("vcs_info", {}).get("commit_id"):
            return str(commit)
        if origin.get("dir_info", {}).get("editable"):
            return read_head(Path(unquote(urlsplit(origin["url"]).path))) or UNKNOWN
    except (OSError, ValueError, KeyError, AttributeError):
        # What others wrote may be damaged or unreadable, which is no reason not to start.
        pass
    return UNKNOWN


def read_head(checkout: Path) -> str | None:
    """Return the commit that is checked out in a directory, None if it is no checkout of git."""
    git = checkout / ".git"
    if git.is_file():
        # A worktree: the file says where its own part is, and that where the branches are.
        git = checkout / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
    if not git.is_dir():
        return None
    common = git / (git / "commondir").read_text(encoding="utf-8").strip() if (git / "commondir").is_file() else git
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head
    name = head.removeprefix("ref: ")
    if (common / name).is_file():
        return (common / name).read_text(encoding="utf-8").strip()
    packed = common / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split(" ")[0] for line in lines if line.endswith(f" {name}")), None)
