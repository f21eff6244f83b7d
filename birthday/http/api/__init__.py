"""Role api: users and messages over HTTP. The probes and ``/metrics`` are served by every role.

A request passes ``observe`` (id, log line, metrics), ``problems`` (every error becomes problem+json) and ``guard``
(host, key, rate), then one function of ``users`` or ``messages``, which reads with ``requests`` and answers with
``responses``. ``app`` puts them together, ``server`` owns the socket.
"""
