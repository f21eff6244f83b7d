-- What is in flight, and the feed, in tables of their own. An outcome changes no column of an index of message_logs then,
-- so it is a HOT update, as a claim is.

-- The messages that are queued, sending or retrying. Whoever changes a status holds the row of the message first.
CREATE TABLE in_flight (
    id uuid PRIMARY KEY,
    -- When it was put into the queue, or into it again.
    queued_at timestamptz NOT NULL,
    -- When it fell due, or was requeued.
    due_at timestamptz NOT NULL
);

CREATE INDEX in_flight_queued ON in_flight (queued_at);

-- OFFSET 0 keeps each message looked up by its id: a plan that was made for a small table would rather read all of it.
CREATE VIEW messages_in_flight AS
    SELECT f.id, f.queued_at, f.due_at, m.message_type, m.status, m.next_attempt_at, m.lease_until, m.updated_at
    FROM in_flight f CROSS JOIN LATERAL (SELECT * FROM message_logs WHERE id = f.id OFFSET 0) m
    WHERE m.status IN ('queued', 'sending', 'retrying');

-- The feed: the messages that got an outcome at a position, in one row for each statement that stored some. What has got
-- another outcome since, or none, has another feed_position in message_logs.
CREATE TABLE outcomes (
    position bigint NOT NULL,
    -- The latest of theirs.
    stored_at timestamptz NOT NULL,
    -- In order.
    ids uuid[] NOT NULL,
    last_id uuid NOT NULL GENERATED ALWAYS AS (ids[cardinality(ids)]) STORED
);

-- Trying to compress ids takes longer than storing them.
ALTER TABLE outcomes ALTER COLUMN ids SET STORAGE EXTERNAL;

-- A publication of all tables would refuse to remove rows otherwise, because no column tells them apart.
ALTER TABLE outcomes REPLICA IDENTITY FULL;

CREATE INDEX outcomes_position ON outcomes (position, last_id);

CREATE VIEW feed_entries AS SELECT o.position, o.last_id, entry.id FROM outcomes o, unnest(o.ids) AS entry (id);

-- Outcomes have ended the flight of these messages. Without an index, the plan of a small table would stay while it grows.
CREATE FUNCTION note_outcomes(ended uuid[], at timestamptz) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    IF ended IS NOT NULL THEN
        DELETE FROM in_flight WHERE id = ANY(ended);
        INSERT INTO outcomes (position, stored_at, ids)
        VALUES (feed_base() + pg_current_xact_id()::text::bigint, at, ARRAY(SELECT unnest(ended) ORDER BY 1));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION place_in_feed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.feed_position := NULL;
    IF NEW.status IN ('delivered', 'failed', 'cancelled', 'expired') THEN
        NEW.feed_position := feed_base() + pg_current_xact_id()::text::bigint;
        PERFORM note_outcomes(ARRAY[NEW.id], NEW.updated_at);
    END IF;
    RETURN NEW;
END $$;

-- Published: it was put into the queue, and is in flight or delivered.
CREATE OR REPLACE FUNCTION message_phase(status text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN status IN ('queued', 'sending', 'retrying', 'delivered') THEN 'published'
                WHEN status IN ('failed', 'expired') THEN 'undelivered'
                ELSE status END
$$;

CREATE FUNCTION note_flight(m message_logs) RETURNS void LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    IF m.status IN ('queued', 'sending', 'retrying') THEN
        INSERT INTO in_flight (id, queued_at, due_at)
        VALUES (m.id, m.queued_at, greatest(m.scheduled_at, m.requeued_at))
        ON CONFLICT (id) DO UPDATE SET queued_at = excluded.queued_at, due_at = excluded.due_at;
    ELSIF m.status = 'scheduled' THEN
        DELETE FROM in_flight WHERE id = m.id;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION follow_status() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.phase := message_phase(NEW.status);
    IF NEW.status IN ('queued', 'sending', 'retrying') THEN
        NEW.queued_at := coalesce(NEW.queued_at, NEW.updated_at);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        PERFORM note_flight(NEW);
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION follow_insertion() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM note_flight(NEW);
    RETURN NULL;
END $$;

CREATE FUNCTION leave_flight() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
    DELETE FROM in_flight WHERE id = OLD.id;
    RETURN NULL;
END $$;

CREATE FUNCTION empty_with_messages() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    TRUNCATE in_flight, outcomes;
    RETURN NULL;
END $$;

-- Waits for all who change messages: from here on, whatever they write is noted.
LOCK TABLE message_logs IN SHARE ROW EXCLUSIVE MODE;

-- The dispatcher's statement is the only one that sets the phase of a scheduled message. It notes what it puts into the
-- queue itself, because calling this for each message takes longer.
CREATE OR REPLACE TRIGGER follow_status
    BEFORE UPDATE OF status, phase, queued_at, scheduled_at, requeued_at ON message_logs FOR EACH ROW
    WHEN (NEW.phase <> message_phase(NEW.status)
          OR NEW.status IN ('queued', 'sending', 'retrying')
             AND (NEW.queued_at IS NULL
                  OR greatest(NEW.scheduled_at, NEW.requeued_at) <> greatest(OLD.scheduled_at, OLD.requeued_at)
                  OR OLD.status NOT IN ('queued', 'sending', 'retrying') AND OLD.phase = NEW.phase))
    EXECUTE FUNCTION follow_status();
CREATE TRIGGER follow_first_status BEFORE INSERT ON message_logs FOR EACH ROW
    WHEN (NEW.phase <> message_phase(NEW.status)
          OR NEW.status IN ('queued', 'sending', 'retrying') AND NEW.queued_at IS NULL)
    EXECUTE FUNCTION follow_status();
-- After the insertion, because ON CONFLICT may drop the row.
CREATE TRIGGER follow_insertion AFTER INSERT ON message_logs FOR EACH ROW
    WHEN (NEW.status IN ('queued', 'sending', 'retrying'))
    EXECUTE FUNCTION follow_insertion();
CREATE TRIGGER leave_flight AFTER DELETE ON message_logs FOR EACH ROW
    WHEN (OLD.status IN ('queued', 'sending', 'retrying'))
    EXECUTE FUNCTION leave_flight();
CREATE TRIGGER empty_with_messages AFTER TRUNCATE ON message_logs EXECUTE FUNCTION empty_with_messages();

INSERT INTO in_flight (id, queued_at, due_at)
SELECT id, coalesce(queued_at, updated_at), greatest(scheduled_at, requeued_at) FROM message_logs
WHERE phase = 'in_flight' AND status IN ('queued', 'sending', 'retrying');

-- Notes the outcomes of before, for the next migration: in small transactions, and again where it was interrupted.
CREATE PROCEDURE fill_outcomes() LANGUAGE plpgsql AS $$
DECLARE
    piece CONSTANT integer := 20000;
    -- What comes later is noted by whoever writes it. Not feed_end(): older transactions may still run.
    stop CONSTANT bigint := feed_base() + pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    done bigint := (SELECT min(feed_position) FROM message_logs) - 1;
    next bigint;
BEGIN
    LOOP
        next := (SELECT max(feed_position) FROM (
            SELECT feed_position FROM message_logs
            WHERE feed_position IS NOT NULL AND feed_position > done AND feed_position < stop
            ORDER BY feed_position, id LIMIT piece) AS following);
        EXIT WHEN next IS NULL;
        INSERT INTO outcomes (position, stored_at, ids)
        SELECT m.feed_position, max(m.updated_at), array_agg(m.id ORDER BY m.id) FROM message_logs m
        WHERE m.feed_position IS NOT NULL AND m.feed_position > done AND m.feed_position <= next
          AND NOT EXISTS (SELECT FROM feed_entries e
                          WHERE e.position = m.feed_position AND e.id = m.id AND e.position > done AND e.position <= next)
        GROUP BY m.feed_position;
        COMMIT;
        done := next;
    END LOOP;
END $$;
