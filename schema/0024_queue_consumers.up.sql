-- Consumers of the queue that have no session, behind a pooler that hands connections out by transaction: a row for each, renewed
-- every ten seconds, removed when it ends and an hour after it was last renewed. Others are counted by their advisory lock.

CREATE TABLE queue_consumers (
    id uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50); -- Renewing a row then touches no index.
