-- When the message is due, by the program's clock, if it was published ahead of that. Only workers look at it.
ALTER TABLE queue_messages ADD COLUMN due_at timestamptz;
