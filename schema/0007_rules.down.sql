-- Lost: notes of the rules that the planner has planned by | SELECT count(*) FROM watermarks WHERE rules IS NOT NULL
ALTER TABLE watermarks DROP COLUMN rules;
