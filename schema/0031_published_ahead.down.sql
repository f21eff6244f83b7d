-- Lost: instants of messages in the queue that are not due yet | SELECT count(*) FROM queue_messages WHERE dead_at IS NULL AND due_at > clock_timestamp()
ALTER TABLE queue_messages DROP COLUMN due_at;
