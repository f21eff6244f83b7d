DROP VIEW message_details;
CREATE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at, template, locale, version
    FROM message_logs;

DROP PROCEDURE IF EXISTS fill_phases();
DROP TRIGGER follow_status ON message_logs;
DROP FUNCTION follow_status();
ALTER TABLE message_logs DROP COLUMN phase;
DROP FUNCTION message_phase(text);
