-- The feed: final outcomes in an order that a poller can follow without a gap.

-- Where an outcome stands in the feed: the number of the transaction that wrote it, plus feed_base(). Transactions commit
-- in any order, so readers stop at feed_end(). Null: not final, or final since before this column was added.
ALTER TABLE message_logs ADD COLUMN feed_position bigint;

-- The API's lists by error type, and by the types that are rare among birthdays. Built without holding up writers.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_errors;
CREATE INDEX CONCURRENTLY message_logs_errors ON message_logs (error_type, scheduled_at, id)
    WHERE error_type IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS message_logs_by_type;
CREATE INDEX CONCURRENTLY message_logs_by_type ON message_logs (message_type, scheduled_at, id)
    WHERE message_type <> 'birthday';

-- The database cluster and its timeline. After a promotion, the recovery's timeline is known before the checkpoint's.
CREATE FUNCTION current_cluster() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT concat_ws('/', s.system_identifier, greatest(c.timeline_id, r.min_recovery_end_timeline))
    FROM pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r
$$;

-- One row: the cluster and timeline that feed_base() is for.
CREATE TABLE feed (cluster text NOT NULL);
INSERT INTO feed (cluster) VALUES (current_cluster());

-- A function instead of a column, because plans have it as a constant: reading a row for each outcome would cost the
-- worker 3 %.
CREATE FUNCTION feed_base() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 0::bigint';

-- A restored or promoted copy of the database may use numbers of transactions again. Then the base is raised, so that what
-- follows stands behind every position that anybody can have read. Returns whether it was.
CREATE FUNCTION follow_cluster() RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '10s' AS $$
BEGIN
    IF (SELECT cluster FROM feed) = current_cluster() THEN
        RETURN false;
    END IF;
    PERFORM FROM feed FOR UPDATE;
    -- Waits for all who write outcomes: a position below the base must not appear once one above it could be read.
    LOCK TABLE message_logs IN SHARE ROW EXCLUSIVE MODE;
    UPDATE feed SET cluster = current_cluster() WHERE cluster <> current_cluster();
    IF FOUND THEN
        EXECUTE format('CREATE OR REPLACE FUNCTION feed_base() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
                       format('SELECT %s::bigint', feed_base() + (1::bigint << 48)));
        -- Changes nothing, but plans with feed_end() are made anew: they have the base as a constant.
        ALTER FUNCTION feed_end() STABLE;
    END IF;
    RETURN FOUND;
END $$;

-- The first position that is not known yet. Below it, every transaction has ended, and the statement that asks sees it.
CREATE FUNCTION feed_end() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT feed_base() + pg_snapshot_xmin(pg_current_snapshot())::text::bigint
$$;

-- Whoever writes an outcome (the program, an operator with psql), it gets its place in the feed. A requeue removes it.
CREATE FUNCTION place_in_feed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.feed_position := CASE WHEN NEW.status IN ('delivered', 'failed', 'cancelled', 'expired')
                              THEN feed_base() + pg_current_xact_id()::text::bigint END;
    RETURN NEW;
END $$;

CREATE TRIGGER place_in_feed BEFORE UPDATE OF status ON message_logs FOR EACH ROW
    WHEN (NEW.status <> OLD.status
          AND (NEW.status IN ('delivered', 'failed', 'cancelled', 'expired') OR OLD.feed_position IS NOT NULL))
    EXECUTE FUNCTION place_in_feed();
