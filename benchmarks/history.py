"""What each full run came to, one line a run: ``python -m benchmarks.history RESULTS`` adds a run to the history."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HISTORY = ROOT / "docs" / "performance" / "history.json"


def line(document: Mapping[str, Any], commit: str) -> dict[str, Any]:
    """Return what is kept of a run: its date, commit and machine, and of each figure the ratio, ours and the limit."""
    figures = (figure for result in document["results"].values() for figure in result.get("figures", []))
    kept = {
        figure["name"]: [float(f"{figure[key]:.4g}") for key in ("ratio", "ours", "limit")]
        for figure in figures
        if not figure.get("too_busy")
    }
    return {"taken_on": document["taken_on"], "commit": commit, "machine": document["machine"], "figures": kept}


def append(run: Mapping[str, Any], path: Path) -> None:
    """Add a run at the end."""
    runs = [*read(path), run]
    path.write_text("[\n" + ",\n".join(json.dumps(each) for each in runs) + "\n]\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Return all runs, the oldest first."""
    runs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return runs


def _commit() -> str:
    command = ("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(arguments: Sequence[str]) -> None:
    """Add the run whose results are in a file."""
    append(line(json.loads(Path(arguments[0]).read_text()), _commit()), HISTORY)


if __name__ == "__main__":
    main(sys.argv[1:])
