DROP PROCEDURE fill_outcomes();
DROP TRIGGER empty_with_messages ON message_logs;
DROP TRIGGER leave_flight ON message_logs;
DROP TRIGGER follow_insertion ON message_logs;
DROP TRIGGER follow_first_status ON message_logs;

-- The functions and the trigger as before.
CREATE OR REPLACE FUNCTION place_in_feed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.feed_position := CASE WHEN NEW.status IN ('delivered', 'failed', 'cancelled', 'expired')
                              THEN feed_base() + pg_current_xact_id()::text::bigint END;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION message_phase(status text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN status IN ('queued', 'sending', 'retrying') THEN 'in_flight'
                WHEN status IN ('failed', 'expired') THEN 'undelivered'
                ELSE status END
$$;

CREATE OR REPLACE FUNCTION follow_status() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.phase := message_phase(NEW.status);
    -- What is in flight is found by this instant.
    IF NEW.phase = 'in_flight' AND NEW.queued_at IS NULL THEN
        NEW.queued_at := NEW.updated_at;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER follow_status BEFORE INSERT OR UPDATE OF status, phase, queued_at ON message_logs FOR EACH ROW
    WHEN (NEW.phase <> message_phase(NEW.status) OR NEW.phase = 'in_flight' AND NEW.queued_at IS NULL)
    EXECUTE FUNCTION follow_status();

-- What is delivered keeps its phase: nothing looks for that.
UPDATE message_logs SET phase = 'in_flight' WHERE id IN (SELECT id FROM in_flight);

DROP FUNCTION empty_with_messages();
DROP FUNCTION leave_flight();
DROP FUNCTION follow_insertion();
DROP FUNCTION note_flight(message_logs);
DROP FUNCTION note_outcomes(uuid[], timestamptz);
DROP VIEW messages_in_flight;
DROP VIEW feed_entries;
DROP TABLE outcomes;
DROP TABLE in_flight;
