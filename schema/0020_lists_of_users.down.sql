DROP INDEX CONCURRENTLY IF EXISTS users_suppressed;
DROP INDEX CONCURRENTLY IF EXISTS users_by_last_name;
DROP INDEX CONCURRENTLY IF EXISTS users_by_name;
DROP INDEX CONCURRENTLY IF EXISTS users_updated;
DROP FUNCTION is_listed(users, text, text, text, text, smallint, boolean, timestamptz);
