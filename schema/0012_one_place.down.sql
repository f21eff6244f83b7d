DROP VIEW message_details;
DROP FUNCTION is_selected(message_logs, text, uuid, timestamptz, timestamptz, uuid, integer);
DROP FUNCTION http_status(message_logs);
DROP FUNCTION plan_message(uuid, text, timestamptz, smallint, date, timestamptz, timestamptz, timestamptz, text);
DROP VIEW message_plans;
DROP FUNCTION is_concerned(users, smallint, timestamptz);
DROP FUNCTION is_current(message_logs, users);
