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
CREATE FUNCTION follow_status() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NEW.phase := message_phase(NEW.status);
    -- What is in flight is found by this instant.
    IF NEW.phase = 'in_flight' AND NEW.queued_at IS NULL THEN
        NEW.queued_at := NEW.updated_at;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER follow_status BEFORE INSERT OR UPDATE OF status, phase, queued_at ON message_logs FOR EACH ROW
    WHEN (NEW.phase <> message_phase(NEW.status) OR NEW.phase = 'in_flight' AND NEW.queued_at IS NULL)
    EXECUTE FUNCTION follow_status();

-- Corrects the rows that are there, for the next migration. In small transactions, and passing over what others hold until
-- they let go of it, because dispatchers and workers need these rows.
CREATE PROCEDURE fill_phases() LANGUAGE plpgsql AS $$
DECLARE
    piece CONSTANT integer := 1000;
    ids uuid[];
BEGIN
    LOOP
        ids := ARRAY(SELECT id FROM message_logs WHERE status <> 'delivered' AND phase <> message_phase(status));
        EXIT WHEN ids = '{}';
        FOR begins IN 1 .. cardinality(ids) BY piece LOOP
            UPDATE message_logs m SET phase = message_phase(m.status)
            FROM (SELECT id FROM message_logs WHERE id = ANY(ids[begins : begins + piece - 1]) ORDER BY id
                  FOR UPDATE SKIP LOCKED) held
            WHERE m.id = held.id AND m.phase <> message_phase(m.status);
            COMMIT;
        END LOOP;
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;

CREATE OR REPLACE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at, template, locale, version, phase
    FROM message_logs;
