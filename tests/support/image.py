"""The container image without an engine: the steps of the Dockerfile in a bare Debian made with debootstrap.

Needs root, and Debian's package debootstrap. The mirror is that of this machine's apt, packages come as pip is set up.
"""

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packaging.markers import Marker

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".venv" / "image"
BASE_IMAGE: Final = "python:3.11-slim-bookworm"
_PACKAGES: Final = "python3,python3-venv,ca-certificates"
_MIRROR: Final = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm")
_IGNORED: Final = {"LABEL", "EXPOSE", "STOPSIGNAL"}
_WHEELS: Final = "/wheels"
"""Where the steps find the packages of the lock: they have no name service, and no settings of pip."""

HAS_TOOLS: Final = os.geteuid() == 0 and all(shutil.which(name) for name in ("debootstrap", "unshare", "setpriv"))

RUN: Final = r"""
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
[ -z "$1" ] || mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
mount -o remount,bind,ro "$0"
shift
exec chroot "$@"
"""
"""What an engine does before it starts the first process: mounts that only this process sees."""
NO_RIGHTS: Final = ("--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")


@dataclass
class Image:
    """A root with what it says of how to run it."""

    root: Path
    directory: str = "/"
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)

    def command(self, *command: str, settings: dict[str, str] | None = None, has_tmp: bool = True) -> tuple[str, ...]:
        """Return what runs a command as the first process of a container: its user, no rights, a read-only root.

        ``has_tmp`` mounts an empty /tmp that can be written to.
        """
        user, group = self.user.split(":")
        variables = [f"{name}={value}" for name, value in (self.environment | (settings or {})).items()]
        return (
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", RUN, str(self.root)),
            *("tmp" if has_tmp else "", str(self.root), "setpriv", f"--reuid={user}", f"--regid={group}", *NO_RIGHTS),
            *("env", "--ignore-environment", f"--chdir={self.directory}", *variables, *command),
        )

    def perform(self, instruction: str, rest: str) -> None:
        """Perform an instruction that concerns this root alone.

        Raises:
            ValueError: if this does not know it.
        """
        match instruction:
            case "RUN":
                self._run(rest)
            case "ENV":
                self.environment |= self._read(shlex.split(rest), self.environment | self.arguments)
            case "ARG":
                self.arguments |= self._read([rest], {})
            case "WORKDIR":
                self.directory = rest
                self.inside(rest).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case "HEALTHCHECK":
                self.health_check = json.loads(rest[rest.index("[") :])
            case _ if instruction not in _IGNORED:
                raise ValueError(f"the Dockerfile has '{instruction} {rest}', which this does not know")

    def inside(self, path: str) -> Path:
        """Return where a path of the image is on this machine; a relative one begins at the working directory."""
        return self.root / (Path(self.directory) / path).relative_to("/")

    def _read(self, words: list[str], known: dict[str, str]) -> dict[str, str]:
        pairs = (word.partition("=") for word in words)
        return {name: string.Template(value).substitute(known) for name, _, value in pairs}

    def _run(self, text: str) -> None:
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": _WHEELS, "PIP_ROOT_USER_ACTION": "ignore"}
        variables = [f"{name}={value}" for name, value in (self.environment | self.arguments | pip).items()]
        env = ("env", "--ignore-environment", f"--chdir={self.directory}", *variables)
        _call("chroot", self.root, *env, "sh", "-ec", text)


def build_image(directory: Path) -> Image:
    """Perform the steps of the Dockerfile in roots below ``directory``, and return its last image.

    Raises:
        ValueError: if it has an instruction that this does not know.
        CalledProcessError: if a step fails.
    """
    wheels = _download()
    images: list[Image] = []
    stages: dict[str, Path] = {}
    for instruction, rest in _instructions((ROOT / "Dockerfile").read_text()):
        match instruction, rest.split():
            case "FROM", [base, *name] if base == BASE_IMAGE:
                root = directory / f"root-{len(images)}"
                _call("cp", "--archive", "--reflink=auto", _base(), root)
                shutil.copytree(wheels, root / _WHEELS.lstrip("/"))
                images.append(Image(root))
                stages[name[-1] if name else ""] = root
            case "COPY", [*sources, target]:
                origin = stages[sources.pop(0).removeprefix("--from=")] if rest.startswith("--from=") else ROOT
                for source in sources:
                    _copy(origin / source.lstrip("/"), images[-1].inside(target), into=target.endswith("/"))
            case _:
                images[-1].perform(instruction, rest)
    shutil.rmtree(images[-1].root / _WHEELS.lstrip("/"))
    return images[-1]


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in lines.replace("\\\n", "").splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def _copy(source: Path, target: Path, *, into: bool) -> None:
    """Copy a file, or what a directory has, as COPY does; a target that ends with a slash is a directory."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        place = target / source.name if into else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place)


def _base() -> Path:
    """Return a bare Debian 12 with its Python, made once, which stands for the base image."""
    base = CACHE / "base"
    if not base.exists():
        new = CACHE / "base.new"
        shutil.rmtree(new, ignore_errors=True)
        mirrors = subprocess.run(_MIRROR, check=False, capture_output=True, text=True).stdout.split()
        _call("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", new, *mirrors[:1])
        (new / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        new.rename(base)
    return base


def _download() -> Path:
    """Download what the lock pins for the Python of the base, and return the directory."""
    python = ["chroot", str(_base()), "python3", "-c", "import platform; print(platform.python_version())"]
    version = subprocess.run(python, check=True, capture_output=True, text=True).stdout.strip()
    wheels, chosen = CACHE / "wheels", CACHE / "requirements.txt"
    # pip itself would look at the Python that runs it.
    chosen.write_text("\n".join(_chosen((ROOT / "requirements-container.lock").read_text(), version)))
    options = ("--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={version}", "--quiet")
    _call(sys.executable, "-m", "pip", "download", *options, "--dest", wheels, "--requirement", chosen)
    return wheels


def _chosen(lock: str, version: str) -> Iterator[str]:
    for entry in re.split(r"\n(?=\S)", lock):
        head, *hashes = entry.split(" \\\n")
        pin, _, marker = head.partition(" ; ")
        if not marker or Marker(marker).evaluate({"python_full_version": version, "python_version": version[:4]}):
            yield " \\\n".join([pin, *hashes])


def first_process(unshare: int) -> int | None:
    """Return the process id, out here, of the first process of a container; None if it has ended."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children")
    return int(children.read_text() or 0) or None if children.exists() else None


def rights(pid: int) -> tuple[int, set[str]]:
    """Return the user of a process, and its sets of capabilities."""
    status = Path(f"/proc/{pid}/status").read_text()
    return Path(f"/proc/{pid}").stat().st_uid, set(re.findall(r"^Cap\w+:\s(\w+)$", status, re.MULTILINE))


def _call(*command: str | Path) -> None:
    """Run a command to its end; if it fails, the error has what it printed."""
    finished = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if finished.returncode:
        error = subprocess.CalledProcessError(finished.returncode, [str(word) for word in command])
        error.add_note(finished.stdout)
        raise error
