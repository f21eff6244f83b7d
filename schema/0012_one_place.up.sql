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

-- A message as it is shown.
CREATE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at
    FROM message_logs;
