DROP VIEW message_details;
DROP FUNCTION plan_message(uuid, text, timestamptz, smallint, date, timestamptz, timestamptz, timestamptz, text);
DROP VIEW message_plans;
DROP FUNCTION is_concerned(users, smallint, timestamptz);
DROP FUNCTION is_current(message_logs, users);
