DROP FUNCTION message_id(uuid, text, date, timestamptz);
