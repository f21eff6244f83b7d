ALTER TABLE message_logs DROP COLUMN may_have_arrived;
