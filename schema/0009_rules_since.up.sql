-- Since when the planner plans by the rules noted beside it. What fell due before was planned by others, rightly. Null: not noted.
ALTER TABLE watermarks ADD COLUMN rules_since timestamptz;
