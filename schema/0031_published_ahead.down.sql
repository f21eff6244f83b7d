-- Lost: instants of messages in the queue that are not due yet | SELECT count(*) FROM queue_messages WHERE due_at IS NOT NULL
ALTER TABLE queue_messages DROP COLUMN due_at;
