-- Lost: greetings of this year to people who are gone, and who are greeted again if they come back | SELECT count(*) FROM past_greetings
-- Lost: which users were greeted as earlier users | SELECT count(*) FROM (SELECT recalled_year FROM users UNION ALL SELECT recalled_year FROM anniversaries) earlier WHERE recalled_year IS NOT NULL
-- Users first, as those who write them lock these tables.
DROP TRIGGER recall_greeting_of_moved ON users;
DROP TRIGGER recall_greeting ON users;
DROP TRIGGER remember_greetings_of_removed ON users;
DROP TRIGGER remember_greetings ON users;
DROP TRIGGER recall_greeting ON anniversaries;
DROP FUNCTION recall_other_greeting();
DROP FUNCTION recall_greeting();
DROP FUNCTION past_year(text, date, text);
DROP FUNCTION remember_greetings();
DROP FUNCTION greeted_years(uuid, smallint);
DROP FUNCTION person_hash(bytea, text, date);
ALTER TABLE users DROP COLUMN recalled_year;
ALTER TABLE anniversaries DROP COLUMN recalled_year;
DROP TABLE past_greetings;
