"""The command ``birthday``: the service, and the list of all commands. Each is imported when it is chosen."""

import sys
from typing import Final

import click

from birthday.cli.command import Commands, errors, offer_env_file

_EPILOG: Final = (
    "Settings are environment variables, or lines of the file --env-file. 'birthday check' lists them with their "
    "values."
)
# Name, place and first sentence of the help of each command: --help must import none. A test compares the sentences.
COMMANDS: Final = (
    ("audit", "audit:audit", "Check who was due, and compare that with the messages."),
    ("check", "check:check", "Print the settings in force, and try every dependency."),
    ("dlq", "dlq:dlq", "Handle dead letters: messages that failed for good."),
    ("erase", "erase:erase", "Erase persons: remove what is held on users, live or deleted."),
    ("explain", "explain:explain", "Explain why USER got a message, or gets none."),
    ("export", "transfer:export", "Write all users to standard output, for 'birthday import'."),
    ("forecast", "forecast:forecast", "Show how many messages fall due in the coming days."),
    ("import", "transfer:import_", "Create a user for each row of FILE (CSV or NDJSON)."),
    ("keys", "keys:keys", "Make, rotate and revoke API keys."),
    ("migrate", "migrate:migrate", "Bring the database to the schema of this version."),
    ("pause", "pauses:pause", "Stop sending, everything or TYPE, until 'birthday resume'."),
    ("preview", "preview:preview", "Show when a person would be greeted."),
    ("requeue", "requeue:requeue", "Send messages again that were only printed."),
    ("resume", "pauses:resume", "Resume sending, everything or TYPE."),
    ("smoke", "smoke:smoke", "Try the installation at URL after a deployment, greeting nobody."),
    ("status", "status:status", "Show the state of all processes and messages on one screen."),
    ("suppress", "suppress:suppress", "Manage the list of people who get no messages."),
    (
        "templates",
        "templates:templates",
        "Show, publish and try what messages say, by type and locale.",
    ),
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
    """Greet users on their birthdays and other yearly dates, at 09:00 in their time zone, exactly once.

    Without a command it runs the service until Ctrl-C or SIGTERM. Without DATABASE_URL and RABBITMQ_URL, an embedded
    PostgreSQL keeps users, messages and the queue.
    """
    if context.invoked_subcommand is None:
        with errors():
            # Imported here, because it imports the whole product.
            from birthday.cli.serve import serve  # noqa: PLC0415

            status = serve(role)
        sys.exit(status)
    elif role is not None:
        raise click.UsageError("--role is for the service only, without a command")


for _name, _place, _summary in COMMANDS:
    main.add_later(_name, _place, _summary)
offer_env_file(main)
