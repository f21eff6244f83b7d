"""Which commit a build is of: told by whoever built it, by pip, or by the files of git; never by running git."""

import subprocess
from pathlib import Path

import pytest

from birthday.telemetry.build import find_commit, read_head

COMMIT = "d08d139790f58b63f0e83e6e603bd375380d1184"


def git(*arguments: str | Path) -> str:
    """Run git as somebody, and return what it printed."""
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a repository with one commit."""
    checkout = tmp_path / "checkout"
    git("init", "--quiet", checkout)
    git("-C", checkout, "commit", "--quiet", "--allow-empty", "--message", "first")
    return checkout


def test_what_the_builder_said_holds() -> None:
    """The image has no checkout: its build argument is all there is."""
    assert find_commit(COMMIT) == COMMIT


def test_the_commit_of_a_checkout_is_read_from_its_files(checkout: Path, tmp_path: Path) -> None:
    """On a branch, on a branch that is packed, on none, and in a worktree; elsewhere there is none."""
    commit = git("-C", checkout, "rev-parse", "HEAD")
    assert read_head(checkout) == commit
    git("-C", checkout, "worktree", "add", "--quiet", "-b", "other", tmp_path / "worktree")
    git("-C", tmp_path / "worktree", "commit", "--quiet", "--allow-empty", "--message", "second")
    assert read_head(tmp_path / "worktree") == git("-C", tmp_path / "worktree", "rev-parse", "HEAD") != commit
    git("-C", checkout, "pack-refs", "--all")
    assert read_head(checkout) == commit
    git("-C", checkout, "checkout", "--quiet", "--detach")
    assert read_head(checkout) == commit
    assert read_head(tmp_path) is None


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    """The branch that HEAD names does not exist yet."""
    git("init", "--quiet", tmp_path)
    assert read_head(tmp_path) is None
