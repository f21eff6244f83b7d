"""Role api: the resources over HTTP. The probes and ``/metrics`` are served by every role.

A request passes ``observe`` (id, log line, metrics), ``problems`` (every error becomes problem+json), ``guard`` (host,
key, rate), ``repeats`` (Idempotency-Key) and ``requests``, which validates query and body with the models of the
resource. Then it reaches one function of the resource. Each resource declares its ``ROUTES``; ``app`` serves them, and
``openapi`` describes them.
"""
