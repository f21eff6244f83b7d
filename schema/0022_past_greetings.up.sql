-- Who was greeted this year, although the user is gone: whoever comes back is not greeted twice in a year.

CREATE TABLE past_greetings (
    -- See person_hash.
    person_hash bytea NOT NULL,
    message_type text NOT NULL,
    -- The latest year in which a message arrived, or may have arrived. The janitor removes what is over.
    year smallint NOT NULL,
    PRIMARY KEY (person_hash, message_type)
);

CREATE INDEX past_greetings_by_year ON past_greetings (year);

-- The year that an earlier user with this address and date of birth was greeted in; then greeted_year is not less.
ALTER TABLE users ADD COLUMN recalled_year smallint;
ALTER TABLE anniversaries ADD COLUMN recalled_year smallint;

-- A person is an address, without regard to case, and a date of birth. The salt is that of suppressed addresses.
CREATE FUNCTION person_hash(salt bytea, email text, date_of_birth date) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(salt || int4send(date_of_birth - date '2000-01-01') || convert_to(lower(email), 'UTF8'))
$$;

-- The years in which a message to a user arrived or may have arrived, by type; 0 and repeats included.
CREATE FUNCTION greeted_years(id uuid, greeted_year smallint) RETURNS TABLE (message_type text, year smallint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT m.message_type, m.occasion_year FROM message_logs m
    -- In two halves, because each of the two indexes by user holds one.
    WHERE (m.user_id = $1 AND m.status <> 'cancelled' OR m.user_id = $1 AND m.status = 'cancelled')
      AND (m.status IN ('sending', 'delivered') OR m.may_have_arrived)
    UNION ALL
    SELECT 'birthday', $2
    UNION ALL
    SELECT a.message_type, a.greeted_year FROM anniversaries a WHERE a.user_id = $1
$$;

-- Whoever deletes a user (the program, an operator with psql), the years that were greeted are remembered.
CREATE FUNCTION remember_greetings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A claim that is under way decides first whether it sends the message.
    PERFORM FROM message_logs
    WHERE user_id = OLD.id AND status <> 'cancelled' AND status IN ('scheduled', 'queued', 'retrying')
    ORDER BY id FOR UPDATE;
    INSERT INTO past_greetings (person_hash, message_type, year)
    SELECT person_hash(s.value, OLD.email, OLD.date_of_birth), past.message_type, max(past.year)
    FROM secrets s CROSS JOIN greeted_years(OLD.id, OLD.greeted_year) past
    WHERE s.name = 'address_salt' AND past.year > 0
    GROUP BY 1, 2
    ON CONFLICT (person_hash, message_type) DO UPDATE SET year = greatest(past_greetings.year, excluded.year);
    RETURN OLD;
END $$;

CREATE TRIGGER remember_greetings AFTER UPDATE OF deleted_at ON users FOR EACH ROW
    WHEN (OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION remember_greetings();
-- Before the dates of the user are removed as well.
CREATE TRIGGER remember_greetings_of_removed BEFORE DELETE ON users FOR EACH ROW
    WHEN (OLD.deleted_at IS NULL) EXECUTE FUNCTION remember_greetings();

-- The year that a person was greeted in, under an earlier user. Null: none is known.
CREATE FUNCTION past_year(email text, date_of_birth date, message_type text) RETURNS smallint LANGUAGE sql STABLE AS $$
    SELECT past.year FROM past_greetings past
    WHERE past.message_type = $3
      AND past.person_hash = person_hash((SELECT value FROM secrets WHERE name = 'address_salt'), $1, $2)
$$;

-- Whoever writes a user or a date, the years that are remembered are taken.
CREATE FUNCTION recall_greeting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    past smallint;
BEGIN
    -- The user who has the address may be about to be deleted.
    PERFORM FROM users u WHERE lower(u.email) = lower(NEW.email) AND u.deleted_at IS NULL AND u.id <> NEW.id FOR SHARE;
    past := past_year(NEW.email, NEW.date_of_birth, 'birthday');
    IF past IS NOT NULL THEN
        NEW.recalled_year := past;
        NEW.greeted_year := greatest(NEW.greeted_year, past);
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE anniversaries a SET recalled_year = earlier.year, greeted_year = greatest(a.greeted_year, earlier.year)
        FROM (SELECT message_type, past_year(NEW.email, NEW.date_of_birth, message_type) AS year
              FROM anniversaries WHERE user_id = NEW.id) earlier
        WHERE a.user_id = NEW.id AND a.message_type = earlier.message_type AND earlier.year IS NOT NULL;
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION recall_other_greeting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    past smallint := (SELECT past_year(u.email, u.date_of_birth, NEW.message_type) FROM users u WHERE u.id = NEW.user_id);
BEGIN
    IF past IS NOT NULL THEN
        NEW.recalled_year := past;
        NEW.greeted_year := greatest(NEW.greeted_year, past);
    END IF;
    RETURN NEW;
END $$;

-- While nobody was deleted who had been greeted, the table's file is empty, and looking at its size is cheaper than calling
-- a function. The API looks once for many users, and says so by a setting of the transaction: that is cheaper still.
CREATE TRIGGER recall_greeting BEFORE INSERT ON users FOR EACH ROW
    WHEN (current_setting('birthday.past_greetings', true) IS DISTINCT FROM 'none'
          AND pg_relation_size('past_greetings'::regclass) > 0) EXECUTE FUNCTION recall_greeting();
CREATE TRIGGER recall_greeting_of_moved BEFORE UPDATE OF email, date_of_birth ON users FOR EACH ROW
    WHEN ((lower(NEW.email), NEW.date_of_birth) IS DISTINCT FROM (lower(OLD.email), OLD.date_of_birth)
          AND pg_relation_size('past_greetings'::regclass) > 0) EXECUTE FUNCTION recall_greeting();
CREATE TRIGGER recall_greeting BEFORE INSERT ON anniversaries FOR EACH ROW
    WHEN (pg_relation_size('past_greetings'::regclass) > 0) EXECUTE FUNCTION recall_other_greeting();

-- Those who have been deleted already.
INSERT INTO past_greetings (person_hash, message_type, year)
SELECT person_hash(s.value, u.email, u.date_of_birth), past.message_type, max(past.year)
FROM secrets s CROSS JOIN users u CROSS JOIN LATERAL greeted_years(u.id, u.greeted_year) past
WHERE s.name = 'address_salt' AND u.deleted_at IS NOT NULL AND past.year > 0
GROUP BY 1, 2;
