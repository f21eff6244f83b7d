"""Every metric there is, by the names of the runbook. Units are seconds and bytes.

A counter is incremented after the transaction it tells of has committed; each role increments its own.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_PREFIX = "birthday_scheduler"
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10)
_LATENESS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600, 48 * 3600)


class Metrics:
    """The metrics of one process, in a registry of its own, so that two of them can live side by side in tests."""

    def __init__(self) -> None:
        """Register everything; nothing is measured before somebody uses it."""
        # When a counter began is of no use to anybody here, and doubles the page.
        disable_created_metrics()  # type: ignore[no-untyped-call] # it has no annotations
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=_PREFIX, registry=self.registry)
        PlatformCollector(registry=self.registry)

        self.api_requests = self._counter(
            "api_requests_total", "HTTP requests answered, by route template.", "method", "path", "status"
        )
        self.api_response_time = self._histogram(
            "api_response_time", "Seconds from request to response, by route template.", _LATENCY, "method", "path"
        )
        self.api_active_requests = self._gauge("api_active_requests", "HTTP requests being answered now.")

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
        self.message_delivery_duration = self._histogram(
            "message_delivery_duration", "Seconds from the scheduled instant to acceptance.", _LATENESS
        )
        self.external_api_duration = self._histogram(
            "external_api_duration", "Seconds that one attempt at the message service took.", _LATENCY, "api"
        )

        self.queue_depth = self._gauge("queue_depth", "Queue messages ready to be consumed.")
        self.queue_delayed = self._gauge("queue_delayed", "Queue messages that wait for another attempt.")
        self.dlq_depth = self._gauge("dlq_depth", "Queue messages in the dead-letter queue.")
        self.consumer_count = self._gauge("consumer_count", "Consumers of the queue, of all processes.")
        self.consumer_restarts = self._counter(
            "consumer_restarts_total", "Times that the worker gave a subscription up because it brought nothing."
        )
        self.circuit_breaker_state = self._gauge("circuit_breaker_state", "0 closed, 0.5 half-open, 1 open.")
        self.paused = self._gauge("paused", "1 while an operator has paused messages of the type.", "message_type")

        self.scheduler_last_success_time = self._gauge(
            "scheduler_last_success_time", "Unix time at which a tick last succeeded.", "job"
        )
        self.scheduler_failures = self._counter("scheduler_failures_total", "Ticks that failed.", "job")
        self.audit_birthdays = self._gauge(
            "audit_birthdays", "Birthdays due within the last catch-up window, by what the audit found.", "finding"
        )
        self.planner_unknown_zones = self._counter(
            "planner_unknown_zones_total", "Times that the planner met users in a time zone that does not exist."
        )
        self.collector_errors = self._counter(
            "collector_errors_total", "Times that a dependency could not be asked for its figures.", "collector"
        )
        self.users_created = self._counter("users_created_total", "Users created through the API.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=_PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=_PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=_PREFIX, registry=self.registry, buckets=buckets)
