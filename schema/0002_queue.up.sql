-- The queue, for installations without RabbitMQ. Every instant in this table is the database's clock.

CREATE TABLE queue_messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- {"messageId":"<uuid>"}; text, because an operator may insert anything, and a worker has to cope with it.
    body text NOT NULL,
    -- Whoever inserts a bare payload is an operator; the program says otherwise.
    by_hand boolean NOT NULL DEFAULT true,
    -- Not handed out before.
    available_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- While a consumer holds it: which one, and until when. A lease that has run out counts as none.
    consumer_id uuid,
    lease_until timestamptz,
    -- How many times it was handed out.
    deliveries integer NOT NULL DEFAULT 0,
    -- Set: a dead letter.
    dead_at timestamptz
) WITH (
    -- Every row is updated once, soon after it was inserted, and no index has what changes: with room left on its page,
    -- that touches no index (a HOT update).
    fillfactor = 50,
    -- Rows are gone within seconds, so vacuum goes by what has been deleted, whatever the size of the table.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 5000
);

CREATE INDEX queue_messages_live ON queue_messages (available_at) WHERE dead_at IS NULL;
CREATE INDEX queue_messages_dead ON queue_messages (dead_at) WHERE dead_at IS NOT NULL;
