-- Lost: users | SELECT count(*) FROM users
-- Lost: messages | SELECT count(*) FROM message_logs
DROP TABLE message_logs;
DROP FUNCTION remember_greeted_years();
DROP TABLE watermarks;
DROP TABLE users;
DROP FUNCTION uuid_v7(timestamptz);
