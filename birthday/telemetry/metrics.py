"""All metrics, with the names of the runbook. Units are seconds and bytes.

A counter is incremented after its transaction has committed, by the role that did the work. A number that may be
unknown, such as one that the database keeps, is a ``Figure``: it is absent while it is unknown.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from birthday.core.events import EVENT_TYPES
from birthday.core.message import BIRTHDAY, ErrorType, Status
from birthday.telemetry.figures import Figure
from birthday.telemetry.label_values import LabelValues
from birthday.telemetry.process import ProcessFigures

PREFIX: Final = "birthday_scheduler"
QUERY_TYPES: Final = ("select", "insert", "update", "delete", "transaction", "other")
BACKGROUND: Final = (
    "api_keys",
    "api_score",
    "database_figures",
    "embedded_database",
    "event_loop",
    "events",
    "overdue",
    "pauses",
    "queue_figures",
    "scheduler",
    "watchdog",
    "worker",
    "worker_utilization",
)
"""Tasks that a ``Supervisor`` or the worker itself starts again."""
TASKS: Final = ("plan", "recover", "retire", "audit", "forecast", "dispatch")

MOST_TYPES: Final = 50
"""How many message types the metrics name."""
_NEEDS_PG_MONITOR = "Has gaps unless the service's database role has pg_monitor."

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10)
_LATENESS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600, 48 * 3600)
_STATEMENTS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_PAUSES = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_TASKS_TAKE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list of metrics."""

    name: str
    kind: str
    labels: tuple[str, ...]
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class _Declared:
    """A metric in the class ``Metrics``, of which each instance makes its own with ``make``."""

    kind: str
    make: Callable[..., object]
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""


def _counter(meaning: str, *labels: str) -> Counter:
    return cast("Counter", _Declared("counter", partial(Counter, labelnames=labels), meaning, labels))


def _gauge(meaning: str, *labels: str, unit: str = "") -> Gauge:
    return cast("Gauge", _Declared("gauge", partial(Gauge, labelnames=labels), meaning, labels, unit))


def _histogram(meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    make = partial(Histogram, labelnames=labels, buckets=buckets)
    return cast("Histogram", _Declared("histogram", make, meaning, labels, "seconds"))


def _figure(meaning: str, *, unit: str = "", counts: bool = False) -> Figure:
    kind = "counter" if counts else "gauge"
    return cast("Figure", _Declared(kind, partial(Figure, counts=counts), meaning, unit=unit))


class Metrics:
    """The metrics of one process, in a registry of its own, so that a test can have several.

    The name of a metric is that of its attribute, after the prefix; that of a counter ends in ``_total`` as well.
    """

    api_requests = _counter("HTTP requests answered, by route template.", "method", "path", "status")
    api_response_time = _histogram("Time from request to response, by route template.", _LATENCY, "method", "path")
    api_active_requests = _gauge("HTTP requests in progress, without this scrape.")
    api_health_score = _figure(
        "Role api: 50 points for no 5xx in the last minute, falling to 0 at 10 %; 20 for the share answered in 1 s; "
        "20 while the database answers, 10 while the queue does. Probes do not count.",
        unit="0-100",
    )
    auth_failures = _counter("Requests without a valid API key.", "reason")
    forbidden_accesses = _counter(
        "Requests refused with 403: wrong scope; without keys, a foreign host name; a form of another site.",
        "reason",
    )
    rate_limit_hits = _counter("Requests refused with 429: by RATE_LIMIT, or after many wrong keys.")
    api_keys_expiring = _gauge("API keys in the database that expire within 14 days and were not rotated.")
    users_created = _counter("Users created through the API or the console, with imports over HTTP.")

    messages_scheduled = _counter("Messages created by the planner, the API or the console, with imports over HTTP.")
    messages_queued = _counter("Messages that the broker has confirmed.")
    messages_sent = _counter("Messages handed to the message service for the first time, by UTC hour.", "hour")
    messages_delivered = _counter("Messages that the service accepted.")
    messages_on_time = _counter("Messages delivered within 60 s of the scheduled instant.")
    messages_processed = _counter("Messages that a worker finished: delivered, failed, cancelled or skipped.")
    messages_failed = _counter("Messages that failed for good.", "error_type")
    message_retries = _counter("Attempts that will be repeated.", "retry_reason")
    messages_cancelled = _counter("Messages cancelled: the user was deleted or suppressed, or the birthday moved.")
    messages_suppressed = _counter("Messages cancelled because the user was suppressed.")
    suppressions = _counter("Users suppressed through the API or the console, or addresses through a link.", "source")
    messages_by_type = _counter("Messages that a worker has delivered or failed, by type.", "message_type", "status")
    messages_expired = _counter("Messages later than the catch-up window, and given up.")
    messages_rescued = _counter("Messages published again because the queue had lost them.")
    birthdays_processed = _counter("Birthdays finished: delivered, failed for good or expired.")
    message_template_usage = _counter("Messages sent for the first time, by the text they have.", "template_name")
    message_render_failures = _counter(
        "Messages that failed because nothing can be sent of their template to their user.", "template_name"
    )
    message_delivery_duration = _histogram("Time from the scheduled instant to acceptance.", _LATENESS)
    messages_overdue = _figure(
        "Messages that are due and not delivered, for any reason: a pause, no scheduler, no worker, a retry. Counts "
        "at most 100,000 of those not queued yet, and as many of the others."
    )
    messages_overdue_oldest_age_seconds = _figure(
        "Age of the most overdue message, since its instant or its requeue; 0 without one.", unit="seconds"
    )
    daily_active_users = _figure("Messages delivered of those that fell due in the last 24 hours, of every type.")

    feed_lag_seconds = _figure(
        "Age of the oldest outcome that a running transaction keeps out of the feed; 0 without one.", unit="seconds"
    )
    events_sent = _counter("Delivery events that the receiver accepted.", "type")
    events_failed = _counter("Delivery events given up after three days.", "type")
    events_lag_seconds = _figure(
        "The process that sends delivery events: age of the oldest one that the receiver lacks; 0 without one.",
        unit="seconds",
    )

    external_api_duration = _histogram("Duration of one attempt at the message service.", _LATENCY, "api")
    external_api_calls = _counter(
        "Attempts to send, by status of the answer (HTTP or SMTP), or timeout, error, or none for a printed greeting.",
        "api_name",
        "status",
    )
    http_client_timeouts = _counter("Attempts that the message service did not answer in time.")
    circuit_breaker_state = _gauge(
        "The circuit to the message service in this process: 0 closed, 0.5 half-open, 1 open."
    )
    circuit_breaker_open = _gauge(
        "1 while the circuit is not closed, by reason: outage, refused (a wrong key or URL), or poison (the service "
        "fails for some messages only).",
        "reason",
    )
    resource_shortages = _counter(
        "Attempts prevented because this host lacked a resource; they do not count for the message.", "resource"
    )

    queue_depth = _figure("Queue messages ready to be consumed.")
    queue_delayed = _figure("Queue messages that wait for a retry.")
    unacked_messages_count = _figure("Queue messages held by consumers: RabbitMQ: of this process; PostgreSQL: of all.")
    dlq_depth = _figure("Queue messages in the dead-letter queue.")
    consumer_count = _figure("Consumers of the queue, of all processes.")
    queue_oldest_message_age_seconds = _figure(
        "Age of the oldest message that the queue should hold; 0 without one.", unit="seconds"
    )
    active_workers = _gauge("1 while this process holds a subscription to the queue.")
    prefetch_count = _figure("Role worker: queue messages it may hold at a time.")
    queue_consumer_utilization = _figure(
        "Role worker: share of the last 5 s in which it could have taken another message at once, as RabbitMQ defines "
        "it; 1 means that workers are not the bottleneck.",
        unit="ratio",
    )
    consumer_restarts = _counter("Times that the worker replaced a stuck subscription.")
    paused = _gauge("1 while an operator has paused messages of the type.", "message_type")

    scheduler_last_success_time = _gauge("Unix time at which a tick last succeeded.", "task", unit="seconds")
    scheduler_failures = _counter("Ticks that failed.", "task")
    scheduler_job_duration = _histogram("Duration of one tick.", _TASKS_TAKE, "task")
    audit_birthdays = _gauge("Birthdays due within the last catch-up window, by the audit's finding.", "finding")
    planner_unknown_zones = _counter("Times that the planner found users with an invalid time zone.")
    forecast_messages = _gauge("Messages that fall due within the next 24 hours, by UTC hour.", "hour")
    forecast_largest_minute_messages = _figure(
        "The most messages that fall due within one minute of the next 24 hours."
    )
    forecast_largest_minute_time = _figure("Unix time at which that minute begins.", unit="seconds")
    forecast_delivery_rate = _figure(
        "The best delivery rate of the last 7 days that lasted a minute, in messages per second; if none did, that of "
        "the fastest burst."
    )
    forecast_drain_seconds = _figure("How long the largest minute takes at that rate.", unit="seconds")

    db_connections_active = _gauge("Connections of the pool that are in use.")
    db_connections_open = _gauge("Connections of the pool that are open.")
    db_connections_max = _gauge("Connections that the pool may open.")
    db_pool_waiting_requests = _gauge("Callers that wait for a connection of the pool.")
    connection_pool_wait_time = _gauge(
        "Longest wait for a connection of the pool in the last 5 to 10 s.", unit="seconds"
    )
    connection_pool_acquisition_time = _histogram("Time to get a connection from the pool.", _STATEMENTS)
    database_query_duration = _histogram("Duration of a statement of this process.", _STATEMENTS, "query_type")
    database_slow_queries = _counter("Statements of this process that took more than 100 ms.", "query_type")

    database_commits = _figure("Transactions committed in the database, by any client.", counts=True)
    database_rollbacks = _figure("Transactions rolled back in the database, by any client.", counts=True)
    database_deadlocks = _figure("Deadlocks in the database.", counts=True)
    buffer_cache_hit_ratio = _figure("Share of blocks found in the database's memory.", unit="ratio")
    index_hit_ratio = _figure("Index blocks found in the database's memory, of all that were read.", unit="ratio")
    active_transactions = _figure(f"Other sessions of the database in a transaction. {_NEEDS_PG_MONITOR}")
    database_active_queries = _figure(f"Other sessions of the database that execute a statement. {_NEEDS_PG_MONITOR}")
    database_sessions = _figure("Sessions of the database server, of all databases and clients.")
    database_max_connections = _figure("The database server's max_connections.")
    db_replication_lag_seconds = _figure(
        f"How far the slowest replica is behind; 0 without replicas. {_NEEDS_PG_MONITOR}", unit="seconds"
    )
    db_replication_asynchronous = _figure(
        "1 if there are replicas and commits do not wait for one, so that a failover may forget deliveries. "
        f"{_NEEDS_PG_MONITOR}"
    )

    processes = _gauge("Processes that have reported to the database within a minute, by role.", "role")
    timezone_data_versions = _figure(
        "Number of releases of the time-zone data in those processes; more than 1 is a fault."
    )
    build_info = _gauge(
        "1, labelled with this process's version, commit and release of the time-zone data.",
        "version",
        "commit",
        "tzdata",
    )
    event_loop_lag_seconds = _gauge("Longest delay of the event loop in the last 10 s.", unit="seconds")
    event_loop_delay_seconds = _histogram("How late the event loop ran a timer, measured ten times a second.", _PAUSES)
    gc_pause_seconds = _histogram("Pause for a garbage collection.", _PAUSES, "generation")
    clock_skew_seconds = _figure(
        "How far this process's clock is ahead of the database's, beyond the round trip; negative if it is behind.",
        unit="seconds",
    )
    clock_faults = _counter("Times that this process's clock became more than 5 s off the database's.")
    active_tasks = _gauge("Tasks of the event loop that have not ended.")
    background_failures = _counter("Unexpected failures of background tasks, which were restarted.", "task")
    collector_errors = _counter("Times that a dependency did not give its figures.", "collector")

    def __init__(self) -> None:
        # The time at which a counter began is not needed, and would double the page.
        disable_created_metrics()  # type: ignore[no-untyped-call] # it has no annotations
        self.registry = CollectorRegistry()
        self.entries: list[Entry] = []
        self.types = LabelValues(MOST_TYPES)
        """The values of the label ``message_type`` of counters."""
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(ProcessFigures(PREFIX))
        for attribute, declared in vars(Metrics).items():
            if isinstance(declared, _Declared):
                name = f"{PREFIX}_{attribute}{'_total' if declared.kind == 'counter' else ''}"
                setattr(self, attribute, declared.make(name, declared.meaning, registry=self.registry))
                self.entries.append(Entry(name, declared.kind, declared.labels, declared.unit, declared.meaning))
        self._create_series()

    def _create_series(self) -> None:
        """Create the series of all label values that are known in advance, because ``rate()`` needs a first sample."""
        known: tuple[tuple[Counter | Histogram, Iterable[str]], ...] = (
            (self.messages_failed, ErrorType),
            (self.message_retries, (ErrorType.EXTERNAL_API_ERROR, ErrorType.TIMEOUT)),
            (self.messages_sent, (f"{hour:02}" for hour in range(24))),
            (self.database_query_duration, QUERY_TYPES),
            (self.database_slow_queries, QUERY_TYPES),
            (self.scheduler_failures, TASKS),
            (self.collector_errors, ("api_keys", "clock", "database", "events", "pauses", "processes", "queue")),
            (self.events_sent, EVENT_TYPES),
            (self.events_failed, EVENT_TYPES),
            (self.background_failures, BACKGROUND),
            (self.gc_pause_seconds, "012"),
            (self.message_template_usage, (BIRTHDAY,)),
            (self.suppressions, ("api", "console", "link")),
            (self.auth_failures, ("ended_key", "no_key", "unknown_key")),
            (self.forbidden_accesses, ("host", "origin", "scope")),
        )
        for metric, values in known:
            for value in values:
                metric.labels(value)
        for status in (Status.DELIVERED, Status.FAILED):
            self.messages_by_type.labels(self.types.label(BIRTHDAY), status)
