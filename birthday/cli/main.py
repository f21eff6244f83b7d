"""The command ``birthday``: the service, and the list of all commands. Each is imported when it is chosen."""

import sys
from typing import Final

import click

from birthday.cli.command import Commands, errors, offer_env_file

_EPILOG: Final = (
    "Settings are environment variables, or lines of the file --env-file; 'birthday check' lists them all, with what "
    "is in force."
)
# Name, place and first sentence of the help of each command: --help must import none. A test compares the sentences.
COMMANDS: Final = (
    ("audit", "audit:audit", "Recompute who was due from DATE to DATE, and compare it with what the messages say."),
    (
        "check",
        "check:check",
        "Print the configuration in force, secrets masked, and try every dependency, as /ready does.",
    ),
    ("dlq", "dlq:dlq", "Handle dead letters: messages that failed for good, and what is no message at all."),
    ("export", "transfer:export", "Write all users to standard output, in a form that 'birthday import' takes."),
    (
        "forecast",
        "forecast:forecast",
        "Show how many messages fall due in the next DAYS days, hour by hour, UTC, and when most of them do.",
    ),
    (
        "import",
        "transfer:import_",
        "Create a user for each row of FILE, which is CSV or NDJSON; '-' is standard input.",
    ),
    ("migrate", "migrate:migrate", "Bring the database to the schema of this version."),
    ("pause", "pauses:pause", "Send nothing of TYPE, or nothing at all, until 'birthday resume'."),
    (
        "preview",
        "preview:preview",
        "Show when somebody would be greeted: the local date and time, and the instant in UTC.",
    ),
    (
        "requeue",
        "requeue:requeue",
        "Queue messages again that count as delivered, because they reached nobody: greetings that were only printed.",
    ),
    ("resume", "pauses:resume", "Send again what 'birthday pause' has stopped: TYPE, or everything."),
    ("status", "status:status", "Show what runs, what stands still, and what comes, on one screen."),
)


@click.group(
    cls=Commands, invoke_without_command=True, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--role", metavar="ROLES", help="Any mix of api, scheduler and worker, separated by commas.  [default: all]"
)
@click.version_option(
    None, "--version", package_name="birthday-scheduler", prog_name="birthday", message="%(prog)s %(version)s"
)
@click.pass_context
def main(context: click.Context, role: str | None) -> None:
    """Greet every user on their birthday, at 09:00 in their own time zone, exactly once.

    Without a command it runs the service until it is stopped with Ctrl-C or SIGTERM. With neither DATABASE_URL nor
    RABBITMQ_URL set, it needs nothing else: an embedded PostgreSQL keeps users, messages and the queue.
    """
    if context.invoked_subcommand is None:
        with errors():
            # Imported here, because it imports the whole product.
            from birthday.cli.serve import serve  # noqa: PLC0415

            status = serve(role)
        sys.exit(status)
    elif role is not None:
        raise click.UsageError("--role goes with no command: it says what the service does")


for _name, _place, _summary in COMMANDS:
    main.add_later(_name, _place, _summary)
offer_env_file(main)
