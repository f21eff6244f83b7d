"""What wants attention, each with the page or the section of the runbook that mends it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from birthday.config import Role, Settings
from birthday.http.console.formats import counted, duration
from birthday.http.console.view import ROOT
from birthday.operations.overview import Overview
from birthday.operations.readiness import CLOCK, DATABASE, MIGRATIONS, QUEUE, CheckResult

RUNBOOK: Final = f"{ROOT}/runbook"
FAILURES: Final = f"{ROOT}/failures"
_LATE: Final = timedelta(minutes=1)
_VERY_LATE: Final = timedelta(minutes=5)
_SECTIONS: Final = {
    CLOCK: "clockwrong",
    DATABASE: "problem-database-performance-issues",
    MIGRATIONS: "1-standard-deployment",
    QUEUE: "problem-queue-backing-up",
}


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing that wants attention. ``kind`` is ``bad``, ``warn`` or ``idle``, which is only worth knowing."""

    kind: str
    title: str
    text: str
    section: str | None = None
    """The section of the runbook."""
    page: tuple[str, str] | None = None
    """Name and address of the page that mends it."""


def find_concerns(
    overview: Overview,
    settings: Settings,
    checks: Mapping[str, CheckResult],
    expiring: Sequence[str],
    notices: Sequence[str],
) -> list[Concern]:
    """Return what wants attention, the worst first. ``expiring`` are the names of keys that end soon."""
    found = [
        *_broken(checks),
        *_stopped(overview, settings),
        *_behind(overview, settings),
        *_differing(overview),
        *(_expiring(name) for name in expiring),
        *(Concern("warn", "The installation needs a look", text, "health-checks") for text in notices),
        *_printed(settings),
    ]
    return sorted(found, key=lambda one: ("bad", "warn", "idle").index(one.kind))


def headline(overview: Overview, concerns: Sequence[Concern]) -> str:
    """Say in one sentence whether all is well."""
    serious = [one for one in concerns if one.kind == "bad"]
    minor = [one for one in concerns if one.kind == "warn"]
    if len(serious) == 1:
        return serious[0].title
    if serious:
        return f"{len(serious)} things want attention"
    if not overview.has_users:
        return "Nobody to greet yet"
    if overview.paused:
        return f"Sending is paused: {', '.join(one.message_type for one in overview.paused)}"
    if minor:
        return f"Greetings go out. {_count(minor)} to look at"
    return "All is well"


def _count(concerns: Sequence[Concern]) -> str:
    return "One thing" if len(concerns) == 1 else f"{len(concerns)} things"


def _broken(checks: Mapping[str, CheckResult]) -> Iterator[Concern]:
    for name, result in checks.items():
        if result.reason is not None:
            yield Concern(
                "bad",
                f"{name.capitalize().replace('_', ' ')} fails",
                result.reason,
                _SECTIONS.get(name, "health-checks"),
            )


def _stopped(overview: Overview, settings: Settings) -> Iterator[Concern]:
    for role in overview.missing_roles:
        missing = "Nothing sends" if role == Role.WORKER else f"No {role} runs"
        section = "noconsumers" if role == Role.WORKER else "servicedown"
        yield Concern("bad", missing, f"No process has reported the role {role} within a minute.", section)
    for one in overview.running:
        process = one.process
        if process.circuit not in {None, "closed"}:
            reason = f": {process.circuit_reason}" if process.circuit_reason else ""
            text = f"{process.host}, process {process.pid}, sends nothing but probes. Messages wait; none is lost."
            yield Concern("bad", f"Circuit {process.circuit}{reason}", text, "circuitbreakeropen")
    queue = overview.queue
    if queue is not None and queue.ready and not queue.consumers and Role.WORKER not in overview.missing_roles:
        text = f"{queue.ready:,} messages are in the queue, and no worker takes any."
        yield Concern("bad", "Nothing consumes", text, "noconsumers")
    for pause in overview.paused:
        since = f"{pause.changed_at:%Y-%m-%d %H:%M} UTC"
        window = duration(settings.catch_up_window)
        text = f"Since {since}, by {pause.changed_by}. Messages wait, and expire after {window}."
        yield Concern("warn", f"{pause.message_type} is paused", text, "pausedtoolong")


def _behind(overview: Overview, settings: Settings) -> Iterator[Concern]:
    waits = timedelta(seconds=overview.overdue.oldest_seconds(overview.at))
    if waits > _LATE:
        text = f"{overview.overdue.messages:,} messages are due and not delivered, the oldest for {duration(waits)}."
        yield Concern("bad" if waits > _VERY_LATE else "warn", "Messages are overdue", text, "messagesoverdue")
    until = overview.planned_until
    if overview.has_users and (until is None or until < overview.at + settings.plan_horizon / 2):
        reached = "never" if until is None else f"until {until:%Y-%m-%d %H:%M} UTC"
        kind = "bad" if until is None or until < overview.at else "warn"
        yield Concern(kind, "The planner is behind", f"Messages are planned {reached} only.", "schedulerstalled")
    if overview.failed:
        text = f"{counted(overview.failed)} messages failed for good. They can be sent again, or dropped."
        yield Concern("warn", "Messages failed", text, "dlqdepthhigh", ("Failures", FAILURES))


def _differing(overview: Overview) -> Iterator[Concern]:
    differing = overview.differing
    if len(differing.versions) > 1:
        text = f"Processes run {' and '.join(differing.versions)}. During a deployment that is normal."
        yield Concern("warn", "Versions differ", text, "1-standard-deployment")
    if len(differing.tzdata) > 1:
        text = f"{' and '.join(differing.tzdata)}: each process computes instants with its own."
        yield Concern("warn", "Time-zone data differ", text, "timezonedatadiffer")
    for name, values in differing.settings.items():
        text = f"{name} is {' and '.join(values)}. It must be the same in all processes."
        yield Concern("warn", "Settings differ", text, "1-standard-deployment")


def _expiring(name: str) -> Concern:
    text = f"The key of {name} ends within two weeks and has no successor."
    return Concern("warn", "An API key expires soon", text, "apikeyexpiressoon")


def _printed(settings: Settings) -> Iterator[Concern]:
    if Role.WORKER in settings.role and not (settings.message_service_url or settings.smtp_url):
        text = "This process prints greetings on its standard output. Set MESSAGE_SERVICE_URL or SMTP_URL to send them."
        yield Concern("idle", "Greetings are only printed", text, "problem-greetings-were-only-printed")
