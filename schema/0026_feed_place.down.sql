CREATE OR REPLACE TRIGGER place_in_feed BEFORE UPDATE OF status ON message_logs FOR EACH ROW
    WHEN (NEW.status <> OLD.status
          AND (NEW.status IN ('delivered', 'failed', 'cancelled', 'expired') OR OLD.feed_position IS NOT NULL))
    EXECUTE FUNCTION place_in_feed();
