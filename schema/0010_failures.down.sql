-- Lost: which messages have failed, when, and by their own fault | SELECT count(*) FROM message_logs WHERE failures > 0 OR failed_at IS NOT NULL OR blamed
ALTER TABLE message_logs DROP COLUMN failures, DROP COLUMN failed_at, DROP COLUMN blamed;
