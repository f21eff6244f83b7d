-- Whether an attempt of a message may have reached its receiver although nobody saw it succeed: no answer came, or the
-- worker died. Once true it stays so. Such a message is never replaced by one with another id: that could be the second
-- greeting of the year.
ALTER TABLE message_logs ADD COLUMN may_have_arrived boolean NOT NULL DEFAULT false;

UPDATE message_logs SET may_have_arrived = true WHERE status IN ('retrying', 'failed') AND error_type = 'timeout';
