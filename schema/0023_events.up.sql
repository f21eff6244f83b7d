-- Delivery events: what a receiver is told of outcomes and opt-outs.

-- Not in the migration that adds the column, because an index is built before the rest of its migration.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_feed;
CREATE INDEX CONCURRENTLY message_logs_feed ON message_logs (feed_position, id) WHERE feed_position IS NOT NULL;

-- The events that are still to be sent. Those of messages come from the feed, a few hundred at a time.
CREATE TABLE events (
    id uuid PRIMARY KEY,
    type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    -- Ids and dates only: nothing that tells of a person.
    data json NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    -- The first attempt that failed.
    failing_since timestamptz,
    next_attempt_at timestamptz NOT NULL
);

CREATE INDEX events_due ON events (attempts, next_attempt_at, id);

-- One row: who sends events, and how far in the feed.
CREATE TABLE event_stream (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    feed_position bigint NOT NULL,
    feed_id uuid NOT NULL,
    -- The process that sends, until then by the database's clock.
    holder uuid,
    lease_until timestamptz NOT NULL,
    -- A hash of EVENTS_URL, and since when its receiver wants no more: it has answered 410.
    receiver text,
    stopped_at timestamptz
);

INSERT INTO event_stream (feed_position, feed_id, lease_until)
VALUES (0, '00000000-0000-0000-0000-000000000000', '-infinity');

-- Whether events are sent: a process with EVENTS_URL has run within three days.
CREATE FUNCTION events_are_sent() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT lease_until > clock_timestamp() - interval '3 days' FROM event_stream
$$;

-- The same outcome has the same id, also in a restored database.
CREATE FUNCTION event_id(message_id uuid, feed_position bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(substring(sha256(uuid_send(message_id) || int8send(feed_position)) FOR 16), 'hex')::uuid
$$;

CREATE FUNCTION tell_of_suppression() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO events (id, type, occurred_at, data, next_attempt_at)
    SELECT gen_random_uuid(), 'user.suppressed', NEW.updated_at, json_build_object('userId', NEW.id), NEW.updated_at
    WHERE events_are_sent();
    RETURN NULL;
END $$;

-- Of the address too: a user who takes one that is on the list is suppressed by that.
CREATE TRIGGER tell_of_suppression AFTER UPDATE OF email, suppressed ON users FOR EACH ROW
    WHEN (NEW.suppressed AND NOT OLD.suppressed AND NEW.deleted_at IS NULL)
    EXECUTE FUNCTION tell_of_suppression();
