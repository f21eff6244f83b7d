-- Lost: suppressed addresses | SELECT count(*) FROM suppressions
-- Lost: the key and salt of unsubscribe links, which do not work any more | SELECT count(*) FROM secrets WHERE EXISTS (SELECT FROM suppressions)
DROP TRIGGER list_suppressed ON users;
DROP TRIGGER suppress_listed ON users;
DROP FUNCTION list_suppressed();
DROP FUNCTION suppress_listed();
DROP FUNCTION address_hash(text);
DROP TABLE suppressions;
DROP TABLE secrets;
