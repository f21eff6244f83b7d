"""Clients of the API, as generators from PyPI and npm make them of its OpenAPI document."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

_PACKAGES: Final = Path(__file__).parents[1] / "clients"


def npm_packages() -> Path:
    """Return the ``node_modules`` that ``tests/clients/package-lock.json`` pins; they are installed once.

    The test is skipped where they cannot be installed.
    """
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    lock = _PACKAGES / "package-lock.json"
    home = Path(sys.prefix) / "npm"
    packages = home / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not packages.exists():
            installing = home / "installing"
            shutil.rmtree(installing, ignore_errors=True)
            installing.mkdir()
            shutil.copy(lock, installing)
            shutil.copy(lock.with_name("package.json"), installing)
            options = ("--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved")
            done = subprocess.run(["npm", "ci", *options], cwd=installing, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"npm cannot install tests/clients: {done.stderr[-500:]}")
            installing.rename(packages)
    return packages / "node_modules"


def run(directory: Path, *arguments: str, **environment: str) -> str:
    """Run a program of the virtual environment, npm or the system in a directory, and return what it prints.

    Raises:
        AssertionError: with all that it printed, if it fails.
    """
    done = subprocess.run(
        arguments,
        cwd=directory,
        env=_environment(directory) | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def _environment(directory: Path) -> dict[str, str]:
    programs = [directory / "node_modules" / ".bin", Path(sys.executable).parent]
    return dict(os.environ) | {"PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]), "NO_COLOR": "1"}
