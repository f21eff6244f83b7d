"""Run the benchmarks: ``python -m benchmarks [--full | --soak SECONDS] [--json FILE] [pytest's own arguments]``."""

import argparse
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Run them all, or those that pytest's arguments choose, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--full", action="store_true", help="more rounds, and the curves as well")
    parser.add_argument("--soak", type=float, default=0, help="nothing but mixed load, for so many seconds")
    parser.add_argument("--json", type=Path, default=HERE.parent / "build" / "benchmarks.json", help="the results")
    options, rest = parser.parse_known_args(arguments)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    chosen = ["--full"] if options.full else []
    return pytest.main(
        [
            str(HERE),
            *chosen,
            f"--soak={options.soak}",
            "--override-ini=python_files=bench_*.py",
            f"--timeout={1200 + options.soak:.0f}",
            "--capture=no",
            "--quiet",
            "--no-header",
            "--tb=short",
            "--benchmark-quiet",
            "-Wdefault::pytest_benchmark.logger.PytestBenchmarkWarning",
            "--benchmark-columns=rounds",
            f"--benchmark-json={options.json}",
            *rest,
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
