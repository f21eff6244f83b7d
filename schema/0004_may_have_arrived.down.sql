-- Lost: marks of messages that may have arrived | SELECT count(*) FROM message_logs WHERE may_have_arrived
ALTER TABLE message_logs DROP COLUMN may_have_arrived;
