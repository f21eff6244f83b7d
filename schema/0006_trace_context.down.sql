ALTER TABLE message_logs DROP COLUMN traceparent;
