-- What messages say: templates by message type and locale.

-- Append-only: a version that was sent once can always be looked up.
CREATE TABLE templates (
    message_type text NOT NULL CHECK (message_type ~ '^[a-z][a-z0-9-]{0,39}$'),
    -- BCP 47, such as pt-BR, or default.
    locale text NOT NULL,
    -- From 1. Version 0 is what is built in, which is not stored.
    version integer NOT NULL CHECK (version > 0),
    message text NOT NULL,
    subject text,
    html text,
    payload text,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    PRIMARY KEY (message_type, locale, version)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME;
END $$;

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON templates FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Which version is sent. No row, or version 0: what is built in, or nothing in this locale.
CREATE TABLE active_templates (
    message_type text NOT NULL,
    locale text NOT NULL,
    version integer NOT NULL,
    activated_at timestamptz NOT NULL,
    activated_by text NOT NULL,
    PRIMARY KEY (message_type, locale)
);

-- How well a template of a locale suits a user of a locale: null not at all, 0 as the default, and the more the closer.
CREATE FUNCTION template_rank(template_locale text, user_locale text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN template_locale = 'default' THEN 0
                WHEN starts_with(lower(user_locale) || '-', lower(template_locale) || '-') THEN length(template_locale) END
$$;

-- The template of a message type for a user of a locale: the one that is published in that locale, in its nearest
-- parent, or as the default; for a birthday otherwise the one that is built in.
CREATE FUNCTION choose_template(
    message_type text, user_locale text, OUT template text, OUT locale text, OUT version integer) RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT CASE a.locale WHEN 'default' THEN $1 ELSE $1 || '.' || a.locale END, a.locale, a.version
    FROM (SELECT a.locale, a.version, template_rank(a.locale, $2) AS rank
          FROM active_templates a WHERE a.message_type = $1 AND a.version > 0
          UNION ALL SELECT 'default', 0, -1 WHERE $1 = 'birthday') a
    WHERE a.rank IS NOT NULL ORDER BY a.rank DESC LIMIT 1
$$;

ALTER TABLE message_logs
    -- What was sent, or is being sent: such as birthday.pt, pt, 3. Fixed by the first attempt; null before it.
    ADD COLUMN template text,
    ADD COLUMN locale text,
    ADD COLUMN version integer;

-- Whether a message says on its next attempt what it said before. A requeue takes the version away.
CREATE FUNCTION keeps_template(m message_logs) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.version IS NOT NULL AND m.status <> 'failed'
       AND (m.sent_at IS NOT NULL OR m.may_have_arrived OR m.status = 'sending')
$$;

-- Their first attempt said what is built in.
UPDATE message_logs SET template = 'birthday', locale = 'default', version = 0 WHERE status IN ('sending', 'retrying');

CREATE OR REPLACE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at, template, locale, version
    FROM message_logs;
