"""Tracing from outside: what a collector gets of the way of a message, and what tracing costs when it is off."""

import asyncio
import os
import sys
import sysconfig
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from birthday.core.ident import uuid7
from tests.support.collector import Collected, Collector
from tests.support.message_service import Answer, MessageService
from tests.support.product import eventually
from tests.support.program import Program, run, running

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
STOP_SECONDS = 8
"""Three for spans that nobody takes, and what every stop takes."""


@pytest.fixture(params=["postgresql", "rabbitmq"])
def queue(request: pytest.FixtureRequest, database_url: str, message_service: MessageService) -> dict[str, str]:
    """Return the settings of an installation that sends at once, with one queue and then with the other."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    if request.param == "rabbitmq":
        settings["RABBITMQ_URL"] = request.getfixturevalue("rabbitmq_url")
    return settings


@pytest.fixture
def installation(database_url: str, message_service: MessageService) -> dict[str, str]:
    """Return the settings of an installation that sends at once, with its queue in the database."""
    return {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}


@pytest.fixture
def path_without_extra(tmp_path: Path) -> str:
    """Return a PYTHONPATH with the program and all that is installed, except what the extra brings."""
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith("opentelemetry"):
            (tmp_path / entry.name).symlink_to(entry)
    return f"{Path(__file__).parents[2]}{os.pathsep}{tmp_path}"


async def post_user(program: Program, traceparent: str | None = None) -> dict[str, Any]:
    """Create a user whose birthday is today, UTC, and return the answer's body."""
    body = {
        "firstName": "Ottilie",
        "lastName": "Lovelace",
        "email": f"ada-{time.monotonic_ns()}@example.com",
        "dateOfBirth": f"1992-{datetime.now(UTC):%m-%d}",
        "timezone": "UTC",
    }
    headers = {"traceparent": traceparent} if traceparent else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{program.url}/users", json=body, headers=headers) as response,
    ):
        answer: dict[str, Any] = await response.json()
        assert response.status == 201, answer
        return answer


async def messages(installation: dict[str, str]) -> list[asyncpg.Record]:
    """Return what tells messages apart, and the context of each."""
    connection = await asyncpg.connect(installation["DATABASE_URL"])
    try:
        rows: list[asyncpg.Record] = await connection.fetch("SELECT id, user_id, status, traceparent FROM message_logs")
    finally:
        await connection.close()
    return rows


def of_trace(collector: Collector, trace_id: str) -> dict[str, Collected]:
    """Return the spans of a trace by their name, which no two of them share."""
    spans = [span for span in collector.spans if span.trace_id == trace_id]
    by_name = {span.name: span for span in spans}
    assert len(by_name) == len(spans), spans
    return by_name


async def test_one_trace_leads_from_the_request_that_creates_a_user_to_the_one_that_greets_them(
    queue: dict[str, str], collector: Collector, message_service: MessageService
) -> None:
    """It is the caller's trace, it goes on at the message service, and it names nobody. Batches link to it."""
    async with running(**queue, **collector.settings) as program:
        user = await post_user(program, f"00-{TRACE}-{CALLER}-01")
        await collector.wait_for(lambda: len(of_trace(collector, TRACE)) == 4)
        await collector.wait_for(lambda: bool(collector.named("send birthday_messages")))
        assert await program.stop() == 0
    [message] = await messages(queue)
    spans = of_trace(collector, TRACE)
    served, created = spans["POST /users"], spans["create birthday_messages"]
    processed, posted = spans["process birthday_messages"], spans["POST"]
    assert [span.kind for span in (served, created, processed, posted)] == ["SERVER", "PRODUCER", "CONSUMER", "CLIENT"]
    assert [span.parent_id for span in (served, created, processed)] == [CALLER, served.span_id, served.span_id]
    assert posted.parent_id == processed.span_id
    [request] = message_service.requests
    assert request.headers["traceparent"] == f"00-{TRACE}-{posted.span_id}-01"
    for name in ("send birthday_messages", "receive birthday_messages"):
        [batch] = collector.named(name)
        assert batch.links == [TRACE]
        assert batch.attributes["messaging.batch.message_count"] == 1
    system = "rabbitmq" if "RABBITMQ_URL" in queue else "postgresql"
    assert created.attributes == {
        "messaging.system": system,
        "messaging.destination.name": "birthday_messages",
        "messaging.operation.name": "create",
        "messaging.operation.type": "create",
        "messaging.message.id": str(message["id"]),
    }
    assert processed.attributes == created.attributes | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "birthday.message.attempt": 1,
        "birthday.message.outcome": "delivered",
    }
    assert posted.attributes == {
        "http.request.method": "POST",
        "url.full": f"{message_service.url}/send",
        "server.address": "127.0.0.1",
        "server.port": int(message_service.url.rpartition(":")[2]),
        "http.response.status_code": 200,
    }
    assert served.attributes.pop("birthday.request_id")
    assert served.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/users",
        "http.response.status_code": 201,
        "birthday.subject": user["id"],
    }
    assert {span.resource["service.name"] for span in collector.spans} == {"birthday-scheduler"}
    assert [span for span in collector.spans if span.is_error] == []
    everything = b"".join(collector.bodies).lower()
    # Letters that no identifier can have: theirs are hexadecimal.
    assert [word for word in (b"ottilie", b"lovelace", b"1992-", b"@example") if word in everything] == []


async def test_one_trace_leads_from_a_tick_of_the_planner_to_each_of_its_messages(
    queue: dict[str, str], collector: Collector, message_service: MessageService
) -> None:
    """Users who were written to the database by other means; what one tick plans has one trace, and one link."""
    connection = await asyncpg.connect(queue["DATABASE_URL"])
    now = datetime.now(UTC)
    try:
        for number in range(3):
            await connection.execute(
                """
                INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from,
                                   created_at, updated_at)
                VALUES ($1, 'Ada', 'Lovelace', $2, $3, 'UTC', $4, $4, $4)
                """,
                uuid7(now),
                f"ada-{number}@example.com",
                now.date().replace(year=1992),
                now - timedelta(days=1),
            )
    finally:
        await connection.close()
    async with running(**queue, **collector.settings) as program:
        await collector.wait_for(lambda: len(collector.named("process birthday_messages")) == 3)
        assert await program.stop() == 0
    created = collector.named("create birthday_messages")
    [tick] = {span.trace_id for span in created}
    [root] = [span for span in collector.named("tick plan") if span.trace_id == tick]
    processed = collector.named("process birthday_messages")
    posted = collector.named("POST")
    assert root.parent_id == ""
    assert {(span.trace_id, span.parent_id) for span in created + processed} == {(tick, root.span_id)}
    assert {span.parent_id for span in posted} == {span.span_id for span in processed}
    received = {tuple(request.headers["traceparent"].split("-")[1:3]) for request in message_service.requests}
    assert received == {(tick, span.span_id) for span in posted}
    ids = {UUID(str(span.attributes["messaging.message.id"])) for span in processed}
    assert {row["id"] for row in await messages(queue)} == ids
    batches = collector.named("send birthday_messages") + collector.named("receive birthday_messages")
    assert all(batch.links == [tick] for batch in batches)
    assert sum(int(batch.attributes["messaging.batch.message_count"]) for batch in batches) == 6


async def test_each_attempt_is_a_span_and_says_what_came_of_it(
    installation: dict[str, str], collector: Collector, message_service: MessageService
) -> None:
    """A 503, then nothing wrong: the first attempt is an error, and the second one says that it is the second one."""
    message_service.answer_with(Answer(status=503))
    settings = installation | collector.settings | {"RETRY_BASE_DELAY": "100ms", "LOG_LEVEL": "debug"}
    async with running(**settings) as program:
        await post_user(program, f"00-{TRACE}-{CALLER}-01")
        await collector.wait_for(lambda: len(collector.named("process birthday_messages")) == 2)
        await collector.wait_for(lambda: len(collector.named("POST")) == 2)
        logged = {event["event"]: event for event in program.events}
    first, second = collector.named("process birthday_messages")
    assert (first.attributes["birthday.message.outcome"], first.is_error) == ("retrying", True)
    assert first.attributes["error.type"] == "external_api_error"
    assert (second.attributes["birthday.message.outcome"], second.is_error) == ("delivered", False)
    refused, accepted = collector.named("POST")
    assert (refused.attributes["error.type"], refused.attributes["http.response.status_code"]) == ("503", 503)
    assert refused.is_error
    assert "http.request.resend_count" not in refused.attributes
    assert accepted.attributes["http.request.resend_count"] == 1
    assert {span.trace_id for span in (first, second, refused, accepted)} == {TRACE}
    for event in ("http.request", "message.retrying", "message.delivered"):
        assert logged[event]["trace_id"] == TRACE


async def test_a_retry_by_an_operator_goes_on_in_the_trace_of_its_request(
    installation: dict[str, str], collector: Collector, message_service: MessageService
) -> None:
    """What failed in one trace is delivered in another one, that of POST /messages/{id}/retry."""
    message_service.answer_with(Answer(status=400))
    async with running(**installation, **collector.settings) as program:
        await post_user(program)
        await program.wait_for_event("message.failed")
        [message] = await messages(installation)
        retry = f"{program.url}/messages/{message['id']}/retry"
        traceparent = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        async with aiohttp.ClientSession() as session, session.post(retry, headers=traceparent) as response:
            assert response.status == 202
        await collector.wait_for(lambda: len(of_trace(collector, TRACE)) == 5)
    spans = of_trace(collector, TRACE)
    served = spans["POST /messages/{id}/retry"]
    assert spans["send birthday_messages"].parent_id == served.span_id
    assert spans["process birthday_messages"].parent_id == served.span_id
    failed = collector.named("process birthday_messages")[0]
    assert (failed.attributes["birthday.message.outcome"], failed.is_error) == ("failed", True)


async def test_probes_are_not_traced_and_what_is_refused_is(installation: dict[str, str], collector: Collector) -> None:
    """Paths are named by their route only: a client may have written anything."""
    async with running(**installation, **collector.settings) as program, aiohttp.ClientSession() as session:
        for path in ("health", "metrics", "ready", "users/ada@example.com", "ada@example.com"):
            async with session.get(f"{program.url}/{path}") as response:
                await response.read()
        await collector.wait_for(lambda: bool(collector.named("GET")))
    served = {
        span.name: span.attributes["http.response.status_code"] for span in collector.spans if span.kind == "SERVER"
    }
    assert served == {"GET /users/{id}": 404, "GET": 404}
    assert b"ada@example" not in b"".join(collector.bodies)


async def test_what_the_caller_does_not_sample_is_not_recorded_and_still_one_trace(
    installation: dict[str, str], collector: Collector, message_service: MessageService
) -> None:
    """The message service learns the trace and that nobody records it; others are recorded as before."""
    other = TRACE[::-1]
    async with running(**installation, **collector.settings) as program:
        await post_user(program, f"00-{TRACE}-{CALLER}-00")
        await message_service.wait_for(1)
        await post_user(program, f"00-{other}-{CALLER}-01")
        await collector.wait_for(lambda: len(of_trace(collector, other)) == 4)
        assert await program.stop() == 0
    assert of_trace(collector, TRACE) == {}
    first, _ = message_service.requests
    assert first.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert first.headers["traceparent"].endswith("-00")


async def test_the_standard_variables_of_opentelemetry_are_obeyed(
    installation: dict[str, str], collector: Collector
) -> None:
    """Service name, resource and sampler are the SDK's own business."""
    settings = collector.settings | {
        "OTEL_SERVICE_NAME": "greetings",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=staging",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    async with running(**installation, **settings) as program:
        await post_user(program)
        await post_user(program, f"00-{TRACE}-{CALLER}-01")
        await collector.wait_for(lambda: len(of_trace(collector, TRACE)) == 4)
        assert await program.stop() == 0
    assert {span.trace_id for span in collector.spans} == {TRACE}
    for span in collector.spans:
        assert span.resource["service.name"] == "greetings"
        assert span.resource["deployment.environment.name"] == "staging"


async def test_without_tracing_nothing_of_it_is_imported_stored_or_sent(
    installation: dict[str, str], message_service: MessageService, collector: Collector
) -> None:
    """Off is the default. The interpreter itself lists what is imported; with tracing on, it is there."""
    listing = installation | {"PYTHONPROFILEIMPORTTIME": "1"}

    async def imported(**settings: str) -> str:
        async with running(**listing, **settings) as program:
            await post_user(program, f"00-{TRACE}-{CALLER}-01")
            await program.wait_for_event("service.started")
            await eventually(is_delivered, "the message is delivered")
            assert await program.stop() == 0
        return "\n".join(event["text"] for event in program.events if event["event"] == "text")

    async def is_delivered() -> bool:
        return all(row["status"] == "delivered" for row in await messages(installation))

    without = await imported()
    [row] = await messages(installation)
    assert row["traceparent"] is None
    [request] = message_service.requests
    assert "traceparent" not in request.headers
    assert "birthday.telemetry.tracing" in without
    assert "opentelemetry" not in without
    assert "opentelemetry" in await imported(**collector.settings)


async def test_on_the_console_each_span_is_a_line_of_json(installation: dict[str, str]) -> None:
    """For whoever tries it out without a collector."""
    settings = {"OTEL_TRACES_EXPORTER": "Console", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    async with running(**installation, **settings) as program:
        await post_user(program)
        line = await program.wait_for_line("POST /users")
    assert line.startswith("{")
    assert line.endswith("}")


@pytest.mark.parametrize("command", [("check",), ()])
async def test_without_the_extra_a_start_with_tracing_says_what_to_install(
    command: tuple[str, ...], path_without_extra: str
) -> None:
    """An interpreter that has all that the program needs, and nothing of OpenTelemetry."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-m", "birthday", *command),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path_without_extra, "OTEL_TRACES_EXPORTER": "otlp"},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    expected = (
        "birthday: OTEL_TRACES_EXPORTER='otlp': tracing needs the extra 'otel', which is not installed; none is "
        "accepted, or install it with 'make install-otel' or pip install 'birthday-scheduler[otel]'\n"
    )
    assert (process.returncode, err.decode()) == (2, expected)


async def test_a_wrong_exporter_is_refused_with_what_is_accepted() -> None:
    """As with every setting."""
    checked = await run("check", OTEL_TRACES_EXPORTER="jaeger")
    assert checked.status == 2
    assert checked.err == "birthday: OTEL_TRACES_EXPORTER='jaeger': 'none', 'otlp' or 'console' is accepted\n"


async def test_a_variable_that_the_sdk_refuses_is_told_in_a_line(installation: dict[str, str]) -> None:
    """No traceback: what it says of itself names what is wrong."""
    started = await run(**installation, OTEL_TRACES_EXPORTER="otlp", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="-1")
    assert started.status == 2
    [line] = started.err.splitlines()
    assert line.startswith("birthday: OTEL_TRACES_EXPORTER=otlp: OpenTelemetry refuses its settings: ")
    assert "max_export_batch_size" in line


async def test_requests_that_share_a_statement_keep_their_own_traces(installation: dict[str, str]) -> None:
    """Each message has the context of the request that made it, and after a move that of the one that moved it."""
    traces = [f"{number:032x}" for number in range(1, 41)]
    settings = installation | {"OTEL_TRACES_EXPORTER": "console", "ROLE": "api"}
    async with running(**settings) as program:
        users = await asyncio.gather(*(post_user(program, f"00-{trace}-{CALLER}-01") for trace in traces))
        created = {str(row["user_id"]): row["traceparent"].split("-")[1] for row in await messages(installation)}
        assert created == dict(zip((user["id"] for user in users), traces, strict=True))
        moved, where = users[0]["id"], f"{program.url}/users/{users[0]['id']}"
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        async with (
            aiohttp.ClientSession() as session,
            session.patch(where, json={"timezone": "Africa/Abidjan"}, headers=headers) as response,
        ):
            assert response.status == 200
    of_moved = [row for row in await messages(installation) if str(row["user_id"]) == moved]
    replacing = {row["status"]: row["traceparent"].split("-")[1] for row in of_moved}
    assert replacing == {"cancelled": traces[0], "scheduled": TRACE}


async def test_a_collector_that_refuses_costs_spans_and_two_lines_in_the_log(
    installation: dict[str, str], collector: Collector
) -> None:
    """One line when it begins, one when it is over, with how many spans were lost; messages do not notice."""
    collector.status = 400
    async with running(**installation, **collector.settings) as program:
        for _ in range(5):
            await post_user(program)
        failed = await program.wait_for_event("tracing.export_failed")
        collector.status = 200
        await post_user(program)
        recovered = await program.wait_for_event("tracing.export_recovered")
        assert await program.stop() == 0
    assert "400" in failed["reason"]
    assert recovered["dropped_spans"] > 0
    said = [event["event"] for event in program.events if event["event"].startswith("tracing.")]
    assert said == ["tracing.export_failed", "tracing.export_recovered"]
    assert not [event for event in program.events if "opentelemetry" in str(event)]


@pytest.mark.parametrize("silent", [False, True], ids=["down", "silent"])
async def test_a_collector_that_is_away_holds_nothing_up(
    installation: dict[str, str], message_service: MessageService, *, silent: bool
) -> None:
    """Nothing listens, or takes and never answers: messages go out, and a stop waits for seconds at most."""
    done = asyncio.Event()

    async def never_answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    listener = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    if not silent:
        listener.close()
        await listener.wait_closed()
    settings = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    async with running(**installation, **settings) as program:
        for _ in range(20):
            await post_user(program)
        await message_service.wait_for(20)
        began = time.monotonic()
        assert await program.stop() == 0
        assert time.monotonic() - began < STOP_SECONDS
    said = [event["event"] for event in program.events if event["event"].startswith("tracing.")]
    assert "tracing.cut_off" in said
    assert len(said) == len(set(said))
    assert not [event for event in program.events if "opentelemetry" in str(event)]
    done.set()
    listener.close()
