-- The indexes of the first migration, with conditions by phase. Built without holding up writers.

-- At most one message a year for each yearly date, unless it was cancelled.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_occasion;
CREATE UNIQUE INDEX CONCURRENTLY message_logs_occasion ON message_logs (user_id, message_type, occasion_year)
    WHERE phase <> 'cancelled';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_user_cancelled;
CREATE INDEX CONCURRENTLY message_logs_user_cancelled ON message_logs (user_id) WHERE phase = 'cancelled';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_scheduled;
CREATE INDEX CONCURRENTLY message_logs_scheduled ON message_logs (scheduled_at) INCLUDE (ends_at)
    WHERE phase = 'scheduled';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_scheduled_end;
CREATE INDEX CONCURRENTLY message_logs_scheduled_end ON message_logs (ends_at) WHERE phase = 'scheduled';
-- By an instant that a claim keeps.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_queued;
CREATE INDEX CONCURRENTLY message_logs_queued ON message_logs (queued_at) WHERE phase = 'in_flight';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_not_delivered;
CREATE INDEX CONCURRENTLY message_logs_not_delivered ON message_logs (scheduled_at, id) WHERE phase = 'undelivered';

-- Functions that are conditions of statements, or have some: with these, they use the indexes.
CREATE OR REPLACE FUNCTION message_summary(user_id uuid, message_type text, schedule_from timestamptz)
RETURNS TABLE (pending_at timestamptz, pending_on date, taken_years smallint[])
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT min(m.scheduled_at) FILTER (WHERE m.status IN ('scheduled', 'queued', 'retrying') AND m.schedule_from = $3),
           min(m.occasion_on) FILTER (WHERE m.status IN ('scheduled', 'queued', 'retrying') AND m.schedule_from = $3),
           array_agg(m.occasion_year) FILTER (WHERE m.status NOT IN ('scheduled', 'queued', 'retrying'))
    FROM message_logs m
    WHERE m.user_id = $1 AND m.message_type = $2 AND m.phase <> 'cancelled'
$$;

CREATE OR REPLACE FUNCTION greeted_years(id uuid, greeted_year smallint)
RETURNS TABLE (message_type text, year smallint) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.message_type, m.occasion_year FROM message_logs m
    -- In two halves, because each of the two indexes by user holds one.
    WHERE (m.user_id = $1 AND m.phase <> 'cancelled' OR m.user_id = $1 AND m.phase = 'cancelled')
      AND (m.status IN ('sending', 'delivered') OR m.may_have_arrived)
    UNION ALL
    SELECT 'birthday', $2
    UNION ALL
    SELECT a.message_type, a.greeted_year FROM anniversaries a WHERE a.user_id = $1
$$;

CREATE OR REPLACE FUNCTION remember_greetings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A claim that is under way decides first whether it sends the message.
    PERFORM FROM message_logs
    WHERE user_id = OLD.id AND phase <> 'cancelled' AND status IN ('scheduled', 'queued', 'retrying')
    ORDER BY id FOR UPDATE;
    INSERT INTO past_greetings (person_hash, message_type, year)
    SELECT person_hash(s.value, OLD.email, OLD.date_of_birth), past.message_type, max(past.year)
    FROM secrets s CROSS JOIN greeted_years(OLD.id, OLD.greeted_year) past
    WHERE s.name = 'address_salt' AND past.year > 0
    GROUP BY 1, 2
    ON CONFLICT (person_hash, message_type) DO UPDATE SET year = greatest(past_greetings.year, excluded.year);
    RETURN OLD;
END $$;

CREATE OR REPLACE FUNCTION is_selected(
    m message_logs, error_type text, user_id uuid, failed_from timestamptz, failed_before timestamptz,
    message_id uuid, http_status integer) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.phase = 'undelivered' AND m.status = 'failed'
       AND (error_type IS NULL OR m.error_type = error_type)
       AND (user_id IS NULL OR m.user_id = user_id)
       AND (failed_from IS NULL OR m.updated_at >= failed_from)
       AND (failed_before IS NULL OR m.updated_at < failed_before)
       AND (message_id IS NULL OR m.id = message_id)
       AND (http_status IS NULL OR http_status(m) = http_status)
$$;
