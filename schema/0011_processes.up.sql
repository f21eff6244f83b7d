-- Which processes run: a row for each, renewed every five seconds, removed when it stops and an hour after it last reported.
-- Only seen_at is the database's clock: what processes say is compared, and their clocks may differ.

CREATE TABLE processes (
    id uuid PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    -- As ROLE takes them.
    roles text NOT NULL,
    version text NOT NULL,
    -- Of which the program was built; unknown if nothing tells.
    commit text NOT NULL,
    -- The release of the time-zone data that it computes instants with.
    tzdata text NOT NULL,
    -- Those settings that must be the same in all processes, as they are written. None of them is a secret.
    settings jsonb NOT NULL,
    -- Of the worker's circuit breaker: closed, half-open or open, and why it opened. Null where there is no worker.
    circuit text,
    circuit_reason text,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50); -- Renewing a row then touches no index.
