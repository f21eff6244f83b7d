-- Lost: the clusters that the feed was written in | SELECT count(*) FROM feed WHERE EXISTS (SELECT FROM message_logs WHERE feed_position IS NOT NULL)
-- Lost: places in the feed of outcomes | SELECT count(*) FROM message_logs WHERE feed_position IS NOT NULL
DROP TRIGGER place_in_feed ON message_logs;
DROP FUNCTION place_in_feed();
DROP FUNCTION feed_end();
DROP FUNCTION follow_cluster();
DROP FUNCTION feed_base();
DROP TABLE feed;
DROP FUNCTION current_cluster();
DROP INDEX message_logs_by_type;
DROP INDEX message_logs_errors;
ALTER TABLE message_logs DROP COLUMN feed_position;
