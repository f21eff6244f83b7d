-- By which rules (SEND_AT, LEAP_DAY) the planner has planned up to the watermark. Null: that was not noted.
ALTER TABLE watermarks ADD COLUMN rules text;
