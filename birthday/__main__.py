"""``birthday`` and ``python -m birthday``: the first that runs of the program, so that no signal comes before it."""

import signal


def main() -> None:
    """Run the command ``birthday``, deaf to SIGUSR1 until the service listens to it.

    logrotate sends that to every process there is, and by default it ends those which have only begun to start. A log
    file that is not open yet need not be reopened. What does nothing is a handler, and not SIG_IGN, which programs that
    are started from here would inherit.
    """
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    # Only now: it imports everything, which takes most of a second.
    from birthday.cli.main import main as command  # noqa: PLC0415

    command()


if __name__ == "__main__":
    main()
