-- Lost: yearly dates besides the birthday | SELECT count(*) FROM anniversaries WHERE date IS NOT NULL
-- Lost: since when each type is planned | SELECT count(*) FROM planned_types
-- Lost: users with an external id, locale or attributes | SELECT count(*) FROM users WHERE external_id IS NOT NULL OR locale IS NOT NULL OR attributes IS NOT NULL
-- Lost: suppressed users | SELECT count(*) FROM users WHERE suppressed
CREATE OR REPLACE FUNCTION remember_greeted_years() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET greeted_year = gone.year
    FROM (SELECT user_id, max(occasion_year) AS year FROM removed
          WHERE status IN ('sending', 'retrying', 'delivered', 'failed', 'expired') GROUP BY user_id) gone
    WHERE users.id = gone.user_id AND users.greeted_year < gone.year;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION is_current(m message_logs, u users) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT u.deleted_at IS NULL AND u.greeted_year <> m.occasion_year
       AND (u.schedule_from = m.schedule_from OR m.may_have_arrived OR m.status = 'sending')
$$;

DROP FUNCTION is_current_anniversary(uuid, text, smallint, timestamptz, boolean);
DROP FUNCTION is_selected(message_logs, text, uuid, timestamptz, timestamptz, uuid, integer, text);
DROP FUNCTION message_summary(uuid, text, timestamptz);
DROP FUNCTION concerned_dates(text, smallint, smallint, timestamptz, timestamptz);
DROP FUNCTION is_concerned(anniversaries, smallint, timestamptz);
-- Users before anniversaries, as those who delete a user lock them.
DROP INDEX users_live_external_id;
DROP TABLE planned_types;
DROP VIEW yearly_dates;
DROP TABLE anniversaries;
COMMENT ON COLUMN users.date_of_birth IS NULL;
ALTER TABLE users DROP COLUMN external_id, DROP COLUMN locale, DROP COLUMN attributes, DROP COLUMN suppressed;
