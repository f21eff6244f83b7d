ALTER TABLE users RESET (fillfactor);
ALTER TABLE anniversaries RESET (fillfactor);
