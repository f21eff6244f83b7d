-- Each rule over messages and users in one place. PostgreSQL inlines these functions: a plan is that of the rule written out.

-- Whether a message may still be sent to its user: the user is live, has the birthday and zone that it was planned for
-- (what may have arrived is finished all the same), and retention has not removed a message of that year.
CREATE FUNCTION is_current(m message_logs, u users) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.deleted_at IS NULL AND u.greeted_year <> m.occasion_year
       AND (u.schedule_from = m.schedule_from OR m.may_have_arrived OR m.status = 'sending')
$$;

-- Whether the occasion of a year, which ends at an instant, is one for a user whose day of birth and zone it has.
CREATE FUNCTION is_concerned(u users, year smallint, ends_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.schedule_from < ends_at AND u.greeted_year < year AND u.date_of_birth < make_date(year, 1, 1)
$$;

-- A message as it is planned: INSERT INTO message_plans SELECT planned.* FROM ... CROSS JOIN LATERAL plan_message(...).
CREATE VIEW message_plans AS
    SELECT id, user_id, message_type, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
           created_at, updated_at, traceparent
    FROM message_logs;

CREATE FUNCTION plan_message(
    user_id uuid, message_type text, schedule_from timestamptz, year smallint, day date, due_at timestamptz,
    ends_at timestamptz, at timestamptz, traceparent text) RETURNS SETOF message_plans
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT message_id(user_id, message_type, day, schedule_from), user_id, message_type, year, day, due_at, ends_at,
           schedule_from, at, at, traceparent
$$;

-- What the message service, or a proxy before it, answered to a message that failed. Null: nothing.
CREATE FUNCTION http_status(m message_logs) RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT substring(m.error_detail FROM 'answered ([1-5][0-9][0-9])')::integer
$$;

-- Whether an operator who selects failed messages by these means this one. Null is no condition.
CREATE FUNCTION is_selected(
    m message_logs, error_type text, user_id uuid, failed_from timestamptz, failed_before timestamptz,
    message_id uuid, http_status integer) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.status = 'failed'
       AND (error_type IS NULL OR m.error_type = error_type)
       AND (user_id IS NULL OR m.user_id = user_id)
       AND (failed_from IS NULL OR m.updated_at >= failed_from)
       AND (failed_before IS NULL OR m.updated_at < failed_before)
       AND (message_id IS NULL OR m.id = message_id)
       AND (http_status IS NULL OR http_status(m) = http_status)
$$;

-- A message as it is shown.
CREATE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at
    FROM message_logs;
