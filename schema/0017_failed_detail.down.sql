DROP FUNCTION is_selected(message_logs, text, uuid, timestamptz, timestamptz, uuid, integer, text, text);
