"""The soft limit of open files, raised in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from birthday.wiring.file_limit import raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
print(raise_file_limit(int(sys.argv[3])), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "enough", "printed"),
    [
        (100, 200, 1000, "200 at a time (raised from 100; hard limit: 200) (200, 200)"),
        (100, 200, 150, "150 at a time (raised from 100; hard limit: 200) (150, 200)"),
        (100, 100, 1000, "100 at a time (hard limit: 100) (100, 100)"),
        (200, 200, 100, "200 at a time (hard limit: 200) (200, 200)"),
    ],
)
def test_it_is_raised_as_far_as_it_may_be_and_never_lowered(soft: int, hard: int, enough: int, printed: str) -> None:
    """Up to the hard limit, or to what is enough."""
    arguments = [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(enough)]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == printed
