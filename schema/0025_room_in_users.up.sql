-- Retention writes the greeted year of a user for each message that it removes, and no index has that column: with room
-- left on its page, such an update touches no index (a HOT update). A full page gets room by its first update.
ALTER TABLE users SET (fillfactor = 90);
ALTER TABLE anniversaries SET (fillfactor = 90);
