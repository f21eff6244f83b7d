-- Lost: who changed what | SELECT count(*) FROM changes
DROP TABLE changes;
DROP FUNCTION keep_changes();
