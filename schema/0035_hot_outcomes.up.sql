-- The tables in_flight and outcomes have taken their place. No release has used these.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_queued;
DROP INDEX CONCURRENTLY IF EXISTS message_logs_feed;
