-- Lost: published templates | SELECT count(*) FROM templates
-- Lost: which templates are active | SELECT count(*) FROM active_templates
-- Lost: which template each message was sent with: its template, locale and version | SELECT count(*) FROM message_logs WHERE template IS NOT NULL OR locale IS NOT NULL OR version IS NOT NULL
DROP VIEW message_details;
CREATE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at
    FROM message_logs;

DROP FUNCTION keeps_template(message_logs);
ALTER TABLE message_logs DROP COLUMN template, DROP COLUMN locale, DROP COLUMN version;
DROP FUNCTION choose_template(text, text);
DROP FUNCTION template_rank(text, text);
DROP TABLE active_templates;
DROP TABLE templates;
DROP FUNCTION refuse_change();
