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

-- Corrects the rows that are there, for the next migration: in small transactions, because dispatchers and workers need these
-- rows. It skips what others hold, and tries that again.
CREATE PROCEDURE fill_phases() LANGUAGE plpgsql AS $$
DECLARE
    piece CONSTANT integer := 1000;
    passes_in_vain integer := 0;
    ids uuid[];
    filled integer;
    filled_by_pass integer;
BEGIN
    LOOP
        -- Not all at once: each piece copies the array.
        ids := ARRAY(SELECT id FROM message_logs WHERE status <> 'delivered' AND phase <> message_phase(status)
                     LIMIT 200000);
        EXIT WHEN ids = '{}';
        filled_by_pass := 0;
        FOR begins IN 1 .. cardinality(ids) BY piece LOOP
            UPDATE message_logs m SET phase = message_phase(m.status)
            FROM (SELECT id FROM message_logs WHERE id = ANY(ids[begins : begins + piece - 1]) ORDER BY id
                  FOR UPDATE SKIP LOCKED) held
            WHERE m.id = held.id AND m.phase <> message_phase(m.status);
            GET DIAGNOSTICS filled = ROW_COUNT;
            filled_by_pass := filled_by_pass + filled;
            COMMIT;
        END LOOP;
        IF filled_by_pass = 0 THEN
            passes_in_vain := passes_in_vain + 1;
            IF passes_in_vain = 20 THEN
                RAISE EXCEPTION 'other transactions hold % messages: run it again when they have ended', cardinality(ids)
                    USING ERRCODE = 'lock_not_available';
            END IF;
            PERFORM pg_sleep(0.5);
        END IF;
    END LOOP;
END $$;

CREATE OR REPLACE VIEW message_details AS
    SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
           sent_at, delivered_at, error_type, error_detail, created_at, updated_at, template, locale, version, phase
    FROM message_logs;
