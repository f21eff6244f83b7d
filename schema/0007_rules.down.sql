ALTER TABLE watermarks DROP COLUMN rules;
