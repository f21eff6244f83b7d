"""``birthday`` and ``python -m birthday``: the first that runs of the program, so that no signal comes before it."""

import io
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the command ``birthday``, deaf to SIGUSR1 until the service listens to it.

    logrotate sends that to every process there is, and by default it ends those which have only begun to start. A log
    file that is not open yet need not be reopened. What does nothing is a handler, and not SIG_IGN, which programs that
    are started from here would inherit.
    """
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    if sys.stdout is None:
        # Whoever started this has closed it.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that lacks a character shows an escape, as standard error does: a name must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Only now: a signal may come while it is imported.
    from birthday.cli.main import main as command  # noqa: PLC0415

    try:
        command()
    finally:
        _end_output()


def _end_output() -> None:
    """Hand over what is still buffered. If nobody reads it any more, that is no error; anything else is."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try again at its exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"birthday: standard output cannot be written: {error.strerror}\n")
            sys.exit(1)


if __name__ == "__main__":
    main()
