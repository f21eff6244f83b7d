-- Statements that operators have at hand from before. Each must run on this schema as it stands.
-- No semicolon is within a statement.

SELECT * FROM pg_stat_activity WHERE state != 'idle';

SELECT count(*) FROM pg_stat_activity;

SELECT pid, now() - pg_stat_activity.query_start AS duration, query FROM pg_stat_activity WHERE state != 'idle' ORDER BY duration DESC LIMIT 10;

SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state != 'idle' AND query_start < NOW() - INTERVAL '5 minutes';

SELECT pid, query, state, query_start FROM pg_stat_activity WHERE state != 'idle' ORDER BY query_start;

SELECT schemaname, tablename, pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename)) AS size FROM pg_tables WHERE schemaname = 'public' ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC;

SELECT schemaname, tablename, pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename)) AS size FROM pg_tables WHERE schemaname = 'public' ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC LIMIT 10;

CREATE INDEX CONCURRENTLY idx_users_date_of_birth ON users(date_of_birth);

VACUUM ANALYZE;

REINDEX DATABASE birthday_scheduler;

ANALYZE VERBOSE;

DELETE FROM message_logs WHERE created_at < NOW() - INTERVAL '90 days';

SELECT COUNT(*) FROM users;

CREATE EXTENSION IF NOT EXISTS pg_stat_statements;

SELECT LEFT(query, 100) as query_preview, calls, round(total_exec_time::numeric / calls, 2) as avg_ms, round(total_exec_time::numeric, 2) as total_ms, rows FROM pg_stat_statements ORDER BY total_exec_time / calls DESC LIMIT 10;

SELECT LEFT(query, 100) as query_preview, shared_blks_read + local_blks_read as blocks_read, shared_blks_hit + local_blks_hit as blocks_hit FROM pg_stat_statements ORDER BY shared_blks_read + local_blks_read DESC LIMIT 10;

SELECT pg_locks.pid, pg_stat_activity.usename, pg_locks.locktype, pg_locks.mode, pg_locks.granted, pg_stat_activity.query, age(now(), pg_stat_activity.query_start) as duration FROM pg_locks JOIN pg_stat_activity ON pg_locks.pid = pg_stat_activity.pid WHERE pg_locks.granted = false ORDER BY pg_stat_activity.query_start;

SELECT blocked.pid AS blocked_pid, blocked.query AS blocked_query, blocking.pid AS blocking_pid, blocking.query AS blocking_query FROM pg_locks blocked_locks JOIN pg_stat_activity blocked ON blocked_locks.pid = blocked.pid JOIN pg_locks blocking_locks ON blocked_locks.locktype = blocking_locks.locktype AND blocked_locks.relation = blocking_locks.relation AND blocked_locks.pid != blocking_locks.pid JOIN pg_stat_activity blocking ON blocking_locks.pid = blocking.pid WHERE NOT blocked_locks.granted;
