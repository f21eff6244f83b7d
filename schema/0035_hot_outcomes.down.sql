-- The indexes as before.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_queued;
CREATE INDEX CONCURRENTLY message_logs_queued ON message_logs (queued_at) WHERE phase = 'in_flight';
DROP INDEX CONCURRENTLY IF EXISTS message_logs_feed;
CREATE INDEX CONCURRENTLY message_logs_feed ON message_logs (feed_position, id) WHERE feed_position IS NOT NULL;
