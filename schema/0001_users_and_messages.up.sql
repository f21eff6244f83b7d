-- Users, their messages, and how far the planner has come.
-- Every instant in these tables is business time, written by the program; only lease_until is the database's clock.

CREATE FUNCTION uuid_v7(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
    -- RFC 9562, section 5.7: 48 bits of Unix milliseconds, then random bits around version 7 and the variant.
    RETURN encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1), 'hex')::uuid;

CREATE TABLE users (
    id uuid PRIMARY KEY,
    first_name text NOT NULL,
    last_name text NOT NULL,
    email text NOT NULL,
    date_of_birth date NOT NULL,
    -- month * 100 + day: what the planner joins on.
    birth_month_day smallint NOT NULL GENERATED ALWAYS AS
        ((extract(month FROM date_of_birth) * 100 + extract(day FROM date_of_birth))::smallint) STORED,
    -- An IANA name, or a fixed offset written UTC+07:00.
    timezone text NOT NULL,
    -- Since when date_of_birth and timezone are what they are. A birthday that had ended by then is not greeted, and a
    -- message planned from an older value is stale.
    schedule_from timestamptz NOT NULL,
    -- The latest year whose message retention has removed from message_logs: invariant 1 outlives the row.
    greeted_year smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);

CREATE UNIQUE INDEX users_live_email ON users (lower(email)) WHERE deleted_at IS NULL;
CREATE INDEX users_birthdays ON users (timezone, birth_month_day) WHERE deleted_at IS NULL;
CREATE INDEX users_deleted ON users (deleted_at) WHERE deleted_at IS NOT NULL;

-- No foreign key to users: a message is history that outlives its user, and the claim checks the user anyway.
CREATE TABLE message_logs (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    message_type text NOT NULL DEFAULT 'birthday',
    occasion_year smallint NOT NULL,
    -- The local date that is greeted.
    occasion_on date NOT NULL,
    scheduled_at timestamptz NOT NULL,
    -- When that local date ends: after an outage, what ends first goes first.
    ends_at timestamptz NOT NULL,
    -- users.schedule_from as it was when this was planned; unequal means that the birthday or zone has moved since.
    schedule_from timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'scheduled' CHECK (status IN
        ('scheduled', 'queued', 'sending', 'retrying', 'delivered', 'failed', 'cancelled', 'expired')),
    -- Claims so far, except those given back unsent.
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    -- The database's clock. A claim that is older may be taken over. Also the fencing token: an outcome names the
    -- lease of the claim that it is of.
    lease_until timestamptz,
    queued_at timestamptz,
    -- First handed to the message service.
    sent_at timestamptz,
    delivered_at timestamptz,
    -- An operator's requeue restarts the catch-up window and the attempts.
    requeued_at timestamptz,
    error_type text,
    error_detail text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Invariant 1. Cancelled messages do not count: what replaces them may fall in the same year.
CREATE UNIQUE INDEX message_logs_one_per_year ON message_logs (user_id, message_type, occasion_year)
    WHERE status <> 'cancelled';
-- With the one above: all messages of one user.
CREATE INDEX message_logs_cancelled ON message_logs (user_id) WHERE status = 'cancelled';
-- What is due (a look-up that costs nothing while nothing is), and the order in which a backlog goes out.
CREATE INDEX message_logs_due ON message_logs (scheduled_at) INCLUDE (ends_at) WHERE status = 'scheduled';
CREATE INDEX message_logs_deadline ON message_logs (ends_at) WHERE status = 'scheduled';
-- What may need to be rescued.
CREATE INDEX message_logs_in_flight ON message_logs (updated_at) WHERE status IN ('queued', 'sending', 'retrying');
-- The operators' lists, and retention.
CREATE INDEX message_logs_by_time ON message_logs (scheduled_at, id);
CREATE INDEX message_logs_undelivered ON message_logs (scheduled_at, id) WHERE status IN ('failed', 'expired');
CREATE INDEX message_logs_created ON message_logs USING brin (created_at);

CREATE TABLE watermarks (
    name text PRIMARY KEY,
    reached_at timestamptz NOT NULL
);

-- Whoever deletes message rows (retention, an operator with psql), the year they stood for stays taken.
CREATE FUNCTION remember_greeted_years() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET greeted_year = gone.year
    FROM (SELECT user_id, max(occasion_year) AS year FROM removed
          WHERE status IN ('sending', 'retrying', 'delivered', 'failed', 'expired') GROUP BY user_id) gone
    WHERE users.id = gone.user_id AND users.greeted_year < gone.year;
    RETURN NULL;
END $$;

CREATE TRIGGER remember_greeted_years AFTER DELETE ON message_logs
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION remember_greeted_years();
