-- Yearly dates besides the birthday, and what is known of a user for the text of a message.

ALTER TABLE users
    -- The customer's own id.
    ADD COLUMN external_id text,
    -- BCP 47, such as pt-BR. Null: not known.
    ADD COLUMN locale text,
    -- A JSON object for templates. Null: empty.
    ADD COLUMN attributes jsonb,
    -- Nothing is ever sent to this user.
    ADD COLUMN suppressed boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN users.date_of_birth IS 'In the year 4: a birthday whose year is not known.';

CREATE UNIQUE INDEX users_live_external_id ON users (external_id) WHERE deleted_at IS NULL AND external_id IS NOT NULL;

CREATE TABLE anniversaries (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    message_type text NOT NULL CHECK (message_type ~ '^[a-z][a-z0-9-]{0,39}$' AND message_type <> 'birthday'),
    -- Null: the user has no such date any more. The row stays, because greeted_year must outlive the date.
    date date,
    month_day smallint GENERATED ALWAYS AS
        ((extract(month FROM date) * 100 + extract(day FROM date))::smallint) STORED,
    -- Copied from the user, for the planner's join.
    timezone text NOT NULL,
    -- Since when date and timezone are what they are; see users.schedule_from.
    schedule_from timestamptz NOT NULL,
    -- See users.greeted_year.
    greeted_year smallint NOT NULL DEFAULT 0,
    -- Copied from the user: users.deleted_at.
    deleted_at timestamptz,
    PRIMARY KEY (user_id, message_type)
);

CREATE INDEX anniversaries_occasions ON anniversaries (message_type, timezone, month_day)
    WHERE date IS NOT NULL AND deleted_at IS NULL;

-- Every yearly date of every user, live or deleted.
CREATE VIEW yearly_dates AS
    SELECT id AS user_id, 'birthday'::text AS message_type, date_of_birth AS date, birth_month_day AS month_day, timezone,
           schedule_from, greeted_year, deleted_at
    FROM users
    UNION ALL
    SELECT user_id, message_type, date, month_day, timezone, schedule_from, greeted_year, deleted_at
    FROM anniversaries WHERE date IS NOT NULL;

-- The types besides birthday that are planned, and since when: what had ended by then is not greeted. The planner adds a
-- type once it has a published template.
CREATE TABLE planned_types (
    message_type text PRIMARY KEY,
    planned_since timestamptz NOT NULL
);

-- As is_concerned for a birthday.
CREATE FUNCTION is_concerned(a anniversaries, year smallint, ends_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT a.schedule_from < ends_at AND a.greeted_year < year AND a.date < make_date(year, 1, 1)
$$;

-- The dates of all planned types, also of suppressed users, that the occasion of a zone and a year concerns, and when each is due.
CREATE FUNCTION concerned_dates(
    zone text, on_month_day smallint, year smallint, due_at timestamptz, ends_at timestamptz)
RETURNS TABLE (user_id uuid, message_type text, schedule_from timestamptz, greeted_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.id, 'birthday'::text, u.schedule_from, greatest(due_at, u.schedule_from)
    FROM users u
    WHERE u.timezone = zone AND u.birth_month_day = on_month_day AND u.deleted_at IS NULL
      AND is_concerned(u, year, ends_at)
    UNION ALL
    SELECT a.user_id, a.message_type, a.schedule_from, greatest(due_at, a.schedule_from, t.planned_since)
    FROM planned_types t
    JOIN anniversaries a ON a.message_type = t.message_type AND a.timezone = zone AND a.month_day = on_month_day
                        AND a.date IS NOT NULL AND a.deleted_at IS NULL
    WHERE t.planned_since < ends_at AND is_concerned(a, year, ends_at)
$$;

-- The message that is planned for a date of a user, and the years for which there is no more to plan.
CREATE FUNCTION message_summary(user_id uuid, message_type text, schedule_from timestamptz)
RETURNS TABLE (pending_at timestamptz, pending_on date, taken_years smallint[])
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT min(m.scheduled_at) FILTER (WHERE m.status IN ('scheduled', 'queued', 'retrying') AND m.schedule_from = $3),
           min(m.occasion_on) FILTER (WHERE m.status IN ('scheduled', 'queued', 'retrying') AND m.schedule_from = $3),
           array_agg(m.occasion_year) FILTER (WHERE m.status NOT IN ('scheduled', 'queued', 'retrying'))
    FROM message_logs m
    WHERE m.user_id = $1 AND m.message_type = $2 AND m.status <> 'cancelled'
$$;

-- As is_current, for a message that is not for a birthday. Apart, because a function with a subquery is not inlined.
CREATE FUNCTION is_current_anniversary(
    user_id uuid, message_type text, year smallint, schedule_from timestamptz, is_kept boolean) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT EXISTS (
        SELECT FROM anniversaries a
        WHERE a.user_id = $1 AND a.message_type = $2 AND a.greeted_year <> $3
          AND (a.date IS NOT NULL AND a.schedule_from = $4 OR $5))
$$;

-- Whether a message may still be sent to its user: the user is live and not suppressed, has the date and zone that it was
-- planned for (what may have arrived is finished all the same), and retention has not removed a message of that year.
CREATE OR REPLACE FUNCTION is_current(m message_logs, u users) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.deleted_at IS NULL AND NOT u.suppressed AND CASE
        WHEN m.message_type = 'birthday' THEN u.greeted_year <> m.occasion_year
             AND (u.schedule_from = m.schedule_from OR m.may_have_arrived OR m.status = 'sending')
        ELSE is_current_anniversary(
            u.id, m.message_type, m.occasion_year, m.schedule_from, m.may_have_arrived OR m.status = 'sending') END
$$;

-- The same with a type; null is no condition.
CREATE FUNCTION is_selected(
    m message_logs, error_type text, user_id uuid, failed_from timestamptz, failed_before timestamptz,
    message_id uuid, http_status integer, message_type text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT is_selected(m, error_type, user_id, failed_from, failed_before, message_id, http_status)
       AND (message_type IS NULL OR m.message_type = message_type)
$$;

-- Whoever deletes message rows (retention, an operator with psql), the year they stood for stays taken.
CREATE OR REPLACE FUNCTION remember_greeted_years() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET greeted_year = gone.year
    FROM (SELECT user_id, max(occasion_year) AS year FROM removed
          WHERE status IN ('sending', 'retrying', 'delivered', 'failed', 'expired') AND message_type = 'birthday'
          GROUP BY user_id) gone
    WHERE users.id = gone.user_id AND users.greeted_year < gone.year;
    UPDATE anniversaries a SET greeted_year = gone.year
    FROM (SELECT user_id, message_type, max(occasion_year) AS year FROM removed
          WHERE status IN ('sending', 'retrying', 'delivered', 'failed', 'expired') AND message_type <> 'birthday'
          GROUP BY user_id, message_type) gone
    WHERE a.user_id = gone.user_id AND a.message_type = gone.message_type AND a.greeted_year < gone.year;
    RETURN NULL;
END $$;
