-- Lost: entries of the queue, dead letters included | SELECT count(*) FROM queue_messages
DROP TABLE queue_messages;
