-- Contract: processes of 0.1.0 must have ended, and will not be started again.

-- Without these, such a process would read all messages for a look by user, and for each tick. While one of them exists,
-- no claim is a HOT update.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_one_per_year;
DROP INDEX CONCURRENTLY IF EXISTS message_logs_cancelled;
DROP INDEX CONCURRENTLY IF EXISTS message_logs_due;
DROP INDEX CONCURRENTLY IF EXISTS message_logs_deadline;
DROP INDEX CONCURRENTLY IF EXISTS message_logs_in_flight;
DROP INDEX CONCURRENTLY IF EXISTS message_logs_undelivered;

-- Room on each page for the version of a row that its claim writes.
ALTER TABLE message_logs SET (fillfactor = 50);
