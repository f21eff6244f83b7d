-- The indexes of the first migration again, for the release before the phases.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_one_per_year;
CREATE UNIQUE INDEX CONCURRENTLY message_logs_one_per_year ON message_logs (user_id, message_type, occasion_year)
    WHERE status <> 'cancelled';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_cancelled;
CREATE INDEX CONCURRENTLY message_logs_cancelled ON message_logs (user_id) WHERE status = 'cancelled';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_due;
CREATE INDEX CONCURRENTLY message_logs_due ON message_logs (scheduled_at) INCLUDE (ends_at)
    WHERE status = 'scheduled';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_deadline;
CREATE INDEX CONCURRENTLY message_logs_deadline ON message_logs (ends_at) WHERE status = 'scheduled';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_in_flight;
CREATE INDEX CONCURRENTLY message_logs_in_flight ON message_logs (updated_at)
    WHERE status IN ('queued', 'sending', 'retrying');
DROP INDEX CONCURRENTLY IF EXISTS message_logs_undelivered;
CREATE INDEX CONCURRENTLY message_logs_undelivered ON message_logs (scheduled_at, id)
    WHERE status IN ('failed', 'expired');

ALTER TABLE message_logs RESET (fillfactor);
