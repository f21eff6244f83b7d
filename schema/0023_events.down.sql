-- Lost: delivery events that are still to be sent | SELECT count(*) FROM events
-- Lost: how far delivery events were sent | SELECT count(*) FROM event_stream WHERE holder IS NOT NULL
-- Concurrently, because a transaction that locked users and message_logs would deadlock with the program.
DROP INDEX CONCURRENTLY IF EXISTS message_logs_feed;
DROP TRIGGER tell_of_suppression ON users;
DROP FUNCTION tell_of_suppression();
DROP FUNCTION event_id(uuid, bigint);
DROP FUNCTION events_are_sent();
DROP TABLE event_stream;
DROP TABLE events;
