"""All metrics, with the names of the runbook. Units are seconds and bytes.

A counter is incremented after its transaction has committed, by the role that did the work. A number that may be
unknown, such as one that the database keeps, is a ``Figure``: it is absent while it is unknown.
"""

from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from birthday.core.message import BIRTHDAY, ErrorType
from birthday.telemetry.figures import Figure
from birthday.telemetry.process import ProcessFigures

PREFIX: Final = "birthday_scheduler"
QUERY_TYPES: Final = ("select", "insert", "update", "delete", "transaction", "other")
BACKGROUND: Final = (
    "api_score",
    "database_figures",
    "embedded_database",
    "event_loop",
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

_NEEDS_PG_MONITOR = "A gap while others are hidden from the service's database role, which pg_monitor prevents."

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


class Metrics:
    """The metrics of one process, in a registry of its own, so that a test can have several."""

    def __init__(self) -> None:
        """Register all metrics."""
        # The time at which a counter began is not needed, and would double the page.
        disable_created_metrics()  # type: ignore[no-untyped-call] # it has no annotations
        self.registry = CollectorRegistry()
        self.entries: list[Entry] = []
        ProcessCollector(namespace=PREFIX, registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(ProcessFigures(PREFIX))
        self._add_api()
        self._add_messages()
        self._add_channel()
        self._add_queue()
        self._add_scheduler()
        self._add_pool()
        self._add_database()
        self._add_process()
        self._create_series()

    def _add_api(self) -> None:
        self.api_requests = self._counter(
            "api_requests_total", "HTTP requests answered, by route template.", "method", "path", "status"
        )
        self.api_response_time = self._histogram(
            "api_response_time", "Time from request to response, by route template.", _LATENCY, "method", "path"
        )
        self.api_active_requests = self._gauge(
            "api_active_requests", "HTTP requests being answered now, but the scrape that asks."
        )
        self.api_health_score = self._figure(
            "api_health_score",
            "Role api: 50 points for no 5xx in the last minute, falling to 0 at 10 %; 20 for the share answered within "
            "1 s; 20 while the database answers, 10 while the queue does. Probes do not count.",
            unit="0-100",
        )
        self.auth_failures = self._counter("auth_failures_total", "Requests without a valid API key.", "reason")
        self.forbidden_accesses = self._counter(
            "forbidden_accesses_total",
            "Requests refused with 403: the key lacks the scope, or the API without keys was asked by another host "
            "name than this machine's.",
            "reason",
        )
        self.rate_limit_hits = self._counter("rate_limit_hits_total", "Requests refused with 429.")
        self.users_created = self._counter("users_created_total", "Users created through the API.")

    def _add_messages(self) -> None:
        self.messages_scheduled = self._counter(
            "messages_scheduled_total", "Messages materialised by the planner, the API or an import."
        )
        self.messages_queued = self._counter("messages_queued_total", "Messages that the broker has confirmed.")
        self.messages_sent = self._counter(
            "messages_sent_total", "Messages handed to the message service for the first time, by UTC hour.", "hour"
        )
        self.messages_delivered = self._counter("messages_delivered_total", "Messages that the service accepted.")
        self.messages_on_time = self._counter(
            "messages_on_time_total", "Messages delivered within 60 s of the scheduled instant."
        )
        self.messages_processed = self._counter(
            "messages_processed_total", "Messages a worker finished with: delivered, failed, cancelled or skipped."
        )
        self.messages_failed = self._counter("messages_failed_total", "Messages that failed for good.", "error_type")
        self.message_retries = self._counter("message_retries_total", "Attempts that will be repeated.", "retry_reason")
        self.messages_cancelled = self._counter(
            "messages_cancelled_total", "Messages cancelled because the user was deleted or the birthday moved."
        )
        self.messages_expired = self._counter(
            "messages_expired_total", "Messages given up because they were later than the catch-up window."
        )
        self.messages_rescued = self._counter(
            "messages_rescued_total", "Messages published again because the queue had lost sight of them."
        )
        self.birthdays_processed = self._counter(
            "birthdays_processed_total", "Birthdays that came to an end: delivered, failed for good or expired."
        )
        self.message_template_usage = self._counter(
            "message_template_usage_total", "Messages sent for the first time, by the text they have.", "template_name"
        )
        self.message_delivery_duration = self._histogram(
            "message_delivery_duration", "Time from the scheduled instant to acceptance.", _LATENESS
        )
        self.messages_overdue = self._figure(
            "messages_overdue",
            "Messages that are due and not delivered, whatever the reason: a pause, no scheduler, no worker, another "
            "attempt to come. At most 100,000 of those to be queued and as many of the others are counted.",
        )
        self.messages_overdue_oldest_age_seconds = self._figure(
            "messages_overdue_oldest_age_seconds",
            "How long the message that waits longest has been due, or since an operator requeued it; 0 if none waits.",
            unit="seconds",
        )
        self.daily_active_users = self._figure(
            "daily_active_users", "Users greeted whose birthday message fell due in the last 24 hours."
        )

    def _add_channel(self) -> None:
        self.external_api_duration = self._histogram(
            "external_api_duration", "Time that one attempt at the message service took.", _LATENCY, "api"
        )
        self.external_api_calls = self._counter(
            "external_api_calls_total",
            "Attempts at the message service, by the HTTP status it answered; timeout or error if it did not.",
            "api_name",
            "status",
        )
        self.http_client_timeouts = self._counter(
            "http_client_timeouts_total", "Attempts that the message service did not answer in time."
        )
        self.circuit_breaker_state = self._gauge(
            "circuit_breaker_state",
            "The circuit to the message service in this process: 0 closed, 0.5 half-open, 1 open.",
        )
        self.circuit_breaker_open = self._gauge(
            "circuit_breaker_open",
            "1 while the circuit is not closed, by the reason: outage, refused (a wrong key or URL), or poison (the "
            "service fails over some messages and delivers others).",
            "reason",
        )
        self.resource_shortages = self._counter(
            "resource_shortages_total",
            "Attempts that could not be made because this host lacked a resource; they cost no message an attempt.",
            "resource",
        )

    def _add_queue(self) -> None:
        self.queue_depth = self._figure("queue_depth", "Queue messages ready to be consumed.")
        self.queue_delayed = self._figure("queue_delayed", "Queue messages that wait for another attempt.")
        self.unacked_messages_count = self._figure(
            "unacked_messages_count",
            "Queue messages that consumers hold: with RabbitMQ those of this process, in PostgreSQL all of them.",
        )
        self.dlq_depth = self._figure("dlq_depth", "Queue messages in the dead-letter queue.")
        self.consumer_count = self._figure("consumer_count", "Consumers of the queue, of all processes.")
        self.queue_oldest_message_age_seconds = self._figure(
            "queue_oldest_message_age_seconds",
            "How long the oldest message that the queue should hold has been there; 0 if there is none.",
            unit="seconds",
        )
        self.active_workers = self._gauge("active_workers", "1 while this process holds a subscription to the queue.")
        self.prefetch_count = self._figure("prefetch_count", "Role worker: queue messages it may hold at a time.")
        self.queue_consumer_utilization = self._figure(
            "queue_consumer_utilization",
            "Role worker: share of the last 5 s in which it could have taken another message at once, which is what "
            "RabbitMQ means by the word; 1 is never the bottleneck.",
            unit="ratio",
        )
        self.consumer_restarts = self._counter(
            "consumer_restarts_total", "Times that the worker gave a subscription up because it brought nothing."
        )
        self.paused = self._gauge("paused", "1 while an operator has paused messages of the type.", "message_type")

    def _add_scheduler(self) -> None:
        self.scheduler_last_success_time = self._gauge(
            "scheduler_last_success_time", "Unix time at which a tick last succeeded.", "task", unit="seconds"
        )
        self.scheduler_failures = self._counter("scheduler_failures_total", "Ticks that failed.", "task")
        self.scheduler_job_duration = self._histogram(
            "scheduler_job_duration", "Time that one tick took.", _TASKS_TAKE, "task"
        )
        self.audit_birthdays = self._gauge(
            "audit_birthdays", "Birthdays due within the last catch-up window, by what the audit found.", "finding"
        )
        self.planner_unknown_zones = self._counter(
            "planner_unknown_zones_total", "Times that the planner met users in a time zone that does not exist."
        )
        self.forecast_messages = self._gauge(
            "forecast_messages", "Messages that fall due within the next 24 hours, by UTC hour.", "hour"
        )
        self.forecast_largest_minute_messages = self._figure(
            "forecast_largest_minute_messages",
            "The most messages that fall due within one minute of the next 24 hours.",
        )
        self.forecast_largest_minute_time = self._figure(
            "forecast_largest_minute_time", "Unix time at which that minute begins.", unit="seconds"
        )
        self.forecast_delivery_rate = self._figure(
            "forecast_delivery_rate",
            "Messages per second that were delivered for a minute on end in the last 7 days; of the fastest burst, if "
            "none took that long.",
        )
        self.forecast_drain_seconds = self._figure(
            "forecast_drain_seconds", "How long the largest minute takes at that rate.", unit="seconds"
        )

    def _add_pool(self) -> None:
        self.db_connections_active = self._gauge("db_connections_active", "Connections of the pool that are in use.")
        self.db_connections_open = self._gauge("db_connections_open", "Connections of the pool that are open.")
        self.db_connections_max = self._gauge("db_connections_max", "Connections that the pool may open.")
        self.db_pool_waiting_requests = self._gauge(
            "db_pool_waiting_requests", "Callers that wait for a connection of the pool now."
        )
        self.connection_pool_wait_time = self._gauge(
            "connection_pool_wait_time",
            "Longest wait for a connection of the pool in the last 5 to 10 s.",
            unit="seconds",
        )
        self.connection_pool_acquisition_time = self._histogram(
            "connection_pool_acquisition_time", "Time until the pool had a connection to lend.", _STATEMENTS
        )
        self.database_query_duration = self._histogram(
            "database_query_duration", "Time that a statement of this process took.", _STATEMENTS, "query_type"
        )
        self.database_slow_queries = self._counter(
            "database_slow_queries_total", "Statements of this process that took more than 100 ms.", "query_type"
        )

    def _add_database(self) -> None:
        self.database_commits = self._figure(
            "database_commits_total", "Transactions committed in the database, by whomever.", counts=True
        )
        self.database_rollbacks = self._figure(
            "database_rollbacks_total", "Transactions rolled back in the database, by whomever.", counts=True
        )
        self.database_deadlocks = self._figure(
            "database_deadlocks_total", "Deadlocks that the database has broken up.", counts=True
        )
        self.buffer_cache_hit_ratio = self._figure(
            "buffer_cache_hit_ratio", "Blocks found in the database's memory, of all that were read.", unit="ratio"
        )
        self.index_hit_ratio = self._figure(
            "index_hit_ratio", "Index blocks found in the database's memory, of all that were read.", unit="ratio"
        )
        self.active_transactions = self._figure(
            "active_transactions",
            f"Sessions of the database that are in a transaction, but the one that asks. {_NEEDS_PG_MONITOR}",
        )
        self.database_active_queries = self._figure(
            "database_active_queries",
            f"Sessions of the database that execute a statement, but the one that asks. {_NEEDS_PG_MONITOR}",
        )
        self.database_sessions = self._figure(
            "database_sessions", "Sessions of the database server, of all its databases and by whomever."
        )
        self.database_max_connections = self._figure(
            "database_max_connections", "Sessions that the database server allows: its setting max_connections."
        )
        self.db_replication_lag_seconds = self._figure(
            "db_replication_lag_seconds",
            f"How far the slowest replica is behind; 0 without replicas. {_NEEDS_PG_MONITOR}",
            unit="seconds",
        )

    def _add_process(self) -> None:
        self.processes = self._gauge(
            "processes", "Processes that have reported to the database within a minute, by role.", "role"
        )
        self.timezone_data_versions = self._figure(
            "timezone_data_versions",
            "How many releases of the time-zone data those processes compute instants with; more than 1 is a mistake.",
        )
        self.build_info = self._gauge(
            "build_info",
            "1, and which build this process is: version, commit and release of the time-zone data.",
            "version",
            "commit",
            "tzdata",
        )
        self.event_loop_lag_seconds = self._gauge(
            "event_loop_lag_seconds", "Longest delay of the event loop in the last 10 s.", unit="seconds"
        )
        self.event_loop_delay_seconds = self._histogram(
            "event_loop_delay_seconds", "How late the event loop ran a timer, measured ten times a second.", _PAUSES
        )
        self.gc_pause_seconds = self._histogram(
            "gc_pause_seconds", "Time that a garbage collection held everything up.", _PAUSES, "generation"
        )
        self.clock_skew_seconds = self._figure(
            "clock_skew_seconds",
            "How far the clock of this process is ahead of the database's, beyond what the round trip explains; "
            "negative if it is behind.",
            unit="seconds",
        )
        self.clock_faults = self._counter(
            "clock_faults_total",
            "Times that the clock of this process turned out to be more than 5 s from the database's.",
        )
        self.active_tasks = self._gauge("active_tasks", "Tasks of the event loop that have not ended.")
        self.background_failures = self._counter(
            "background_failures_total",
            "Times that a background task failed unexpectedly and was started again.",
            "task",
        )
        self.collector_errors = self._counter(
            "collector_errors_total", "Times that a dependency could not be asked for its figures.", "collector"
        )

    def _create_series(self) -> None:  # noqa: C901 - one loop for each label
        """Create the series of all label values that are known in advance, because ``rate()`` needs a first sample."""
        for error_type in ErrorType:
            self.messages_failed.labels(error_type.value)
        for reason in (ErrorType.EXTERNAL_API_ERROR, ErrorType.TIMEOUT):
            self.message_retries.labels(reason.value)
        for hour in range(24):
            self.messages_sent.labels(f"{hour:02}")
        for query_type in QUERY_TYPES:
            self.database_query_duration.labels(query_type)
            self.database_slow_queries.labels(query_type)
        for task in TASKS:
            self.scheduler_failures.labels(task)
        for collector in ("clock", "database", "pauses", "processes", "queue"):
            self.collector_errors.labels(collector)
        for background in BACKGROUND:
            self.background_failures.labels(background)
        for generation in "012":
            self.gc_pause_seconds.labels(generation)
        self.message_template_usage.labels(BIRTHDAY)
        for failure in ("no_key", "unknown_key"):
            self.auth_failures.labels(failure)
        for refusal in ("host", "scope"):
            self.forbidden_accesses.labels(refusal)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self._list(name, "counter", labels, "", text)
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str, unit: str = "") -> Gauge:
        self._list(name, "gauge", labels, unit, text)
        return Gauge(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self._list(name, "histogram", labels, "seconds", text)
        return Histogram(name, text, labels, namespace=PREFIX, registry=self.registry, buckets=buckets)

    def _figure(self, name: str, text: str, *, unit: str = "", counts: bool = False) -> Figure:
        self._list(name, "counter" if counts else "gauge", (), unit, text)
        figure = Figure(f"{PREFIX}_{name}", text, counts=counts)
        self.registry.register(figure)
        return figure

    def _list(self, name: str, kind: str, labels: tuple[str, ...], unit: str, text: str) -> None:
        self.entries.append(Entry(f"{PREFIX}_{name}", kind, labels, unit, text))
