"""The entry point of ``birthday`` and ``python -m birthday``: it handles SIGUSR1 before it imports the program."""

import io
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the command ``birthday``, and ignore SIGUSR1 until the service handles it.

    logrotate sends SIGUSR1 to every process of the program. By default it would end a process that is still starting.
    A log file that is not open yet need not be reopened. The signal is ignored by an empty handler, because child
    processes would inherit SIG_IGN.
    """
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    if sys.stdout is None:
        # The parent process has closed standard output.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the output's encoding lacks is escaped, as on standard error: a name must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Imported only now, because a signal may arrive during the import.
    from birthday.cli.main import main as command  # noqa: PLC0415

    try:
        command()
    finally:
        _end_output()


def _end_output() -> None:
    """Flush standard output. A closed pipe is no error; after any other failure, exit with status 1."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python flushes again at its exit, and fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"birthday: standard output cannot be written: {error.strerror}\n")
            sys.exit(1)


if __name__ == "__main__":
    main()
