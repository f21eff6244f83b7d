"""A channel to the message service that traces its requests, as part of the traces of their messages."""

from birthday.channels.message_service.channel import HttpChannel
from birthday.channels.outcomes import Delivered, Greeting, Outcome
from birthday.telemetry.tracing import Tracing


class TracedChannel:
    """Sends by another channel, with a span for each request."""

    def __init__(self, channel: HttpChannel, tracing: Tracing) -> None:
        """Keep what is passed in. The caller still owns ``channel``."""
        self._channel = channel
        self._tracing = tracing
        self.api = channel.api
        self.breaker = channel.breaker
        self.check = channel.check
        self.close = channel.close

    async def send(self, greeting: Greeting) -> Outcome:
        """Try once."""
        with self._tracing.call(self._channel.url, greeting.attempt) as span:
            outcome = await self._channel.send(greeting._replace(traceparent=span.traceparent))
            span.answer(outcome.status, _error_type(outcome))
        return outcome


def _error_type(outcome: Outcome) -> str | None:
    """Return the status, as the semantic conventions require, or the type of error if there was no answer."""
    if isinstance(outcome, Delivered):
        return None
    return str(outcome.status or outcome.error_type)
