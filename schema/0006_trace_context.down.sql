-- Lost: trace contexts of messages | SELECT count(*) FROM message_logs WHERE traceparent IS NOT NULL
ALTER TABLE message_logs DROP COLUMN traceparent;
