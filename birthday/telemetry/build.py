"""Which build this is: the version, and the commit that it was made from.

Nothing here runs git, because containers and many hosts do not have it. An image has the commit in BIRTHDAY_COMMIT. If
pip installed from a repository, it has noted the commit. For an editable installation, git's files are read.
"""

import json
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

NAME: Final = "birthday-scheduler"
UNKNOWN: Final = "unknown"


def read_version() -> str:
    """Return the version of the installed package."""
    return version(NAME)


def find_commit(given: str | None) -> str:
    """Return the commit: ``given`` if it is set, otherwise that of the installation, otherwise ``unknown``.

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
        # Files of pip and git may be damaged or unreadable. The program starts without a commit then.
        pass
    return UNKNOWN


def read_head(checkout: Path) -> str | None:
    """Return the commit that is checked out in a directory; None if it is not a git checkout."""
    git = checkout / ".git"
    if git.is_file():
        # In a worktree, .git is a file with the path of the worktree's own data. ``commondir`` there leads to the refs.
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
