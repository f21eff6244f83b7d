-- Lost: notes of since when those rules hold | SELECT count(*) FROM watermarks WHERE rules_since IS NOT NULL
ALTER TABLE watermarks DROP COLUMN rules_since;
