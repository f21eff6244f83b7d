-- Where a message stands, in five phases, for the conditions of indexes. With the status in these, every change of it
-- would write to all indexes; a claim keeps the phase, so it needs none (a HOT update).

CREATE FUNCTION message_phase(status text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN status IN ('queued', 'sending', 'retrying') THEN 'in_flight'
                WHEN status IN ('failed', 'expired') THEN 'undelivered'
                ELSE status END
$$;

-- All rows that are there get the first default without being written. The next migration corrects those that are not
-- delivered.
ALTER TABLE message_logs ADD COLUMN phase text NOT NULL DEFAULT 'delivered';
ALTER TABLE message_logs ALTER COLUMN phase SET DEFAULT 'scheduled';

-- Frequent statements set the phase themselves, because calling this for each row costs more. Whoever else writes a
-- status (the previous release, an operator with psql), the phase follows it.
CREATE FUNCTION follow_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.phase := message_phase(NEW.status);
    -- What is in flight is found by this instant.
    IF NEW.phase = 'in_flight' AND NEW.queued_at IS NULL THEN
        NEW.queued_at := NEW.updated_at;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER follow_status BEFORE INSERT OR UPDATE OF status, phase ON message_logs FOR EACH ROW
    WHEN (NEW.phase <> message_phase(NEW.status))
    EXECUTE FUNCTION follow_status();

CREATE OR REPLACE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at, template, locale, version, phase
    FROM message_logs;
