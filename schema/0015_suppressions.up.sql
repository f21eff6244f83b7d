-- Who has opted out: a list of hashed addresses that outlives the users.

-- Random values that belong to this installation. A dump has them, so that lists and links stay valid in a restored database.
CREATE TABLE secrets (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

INSERT INTO secrets (name, value)
SELECT name, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
FROM unnest(ARRAY['address_salt', 'unsubscribe_key']) AS name;

CREATE TABLE suppressions (
    address_hash bytea PRIMARY KEY,
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    -- The API key, the operator, 'link' or 'user' (users.suppressed was written).
    created_by text NOT NULL
);

CREATE INDEX suppressions_by_time ON suppressions (created_at, address_hash);

-- The hash of an e-mail address as users.email has it, without regard to case.
CREATE FUNCTION address_hash(email text) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(value || convert_to(lower(email), 'UTF8')) FROM secrets WHERE name = 'address_salt'
$$;

-- A live user is suppressed exactly if the address is on the list. Whoever writes users keeps to that:
-- suppressed = false revives nobody, only removal from the list does.
CREATE FUNCTION suppress_listed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.suppressed := EXISTS (SELECT FROM suppressions s WHERE s.address_hash = address_hash(NEW.email));
    RETURN NEW;
END $$;

CREATE FUNCTION list_suppressed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO suppressions (address_hash, reason, created_at, created_by)
    VALUES (address_hash(NEW.email), 'the user was written with suppressed = true', NEW.updated_at, 'user')
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

-- While nobody was ever on the list, its file is empty, and looking at its size is cheaper than calling a function.
-- The API looks into the list once for many users, and says so by a setting of the transaction: that is cheaper still.
CREATE TRIGGER suppress_listed BEFORE INSERT OR UPDATE OF email, suppressed ON users
    FOR EACH ROW WHEN (NOT NEW.suppressed AND current_setting('birthday.suppressions', true) IS DISTINCT FROM 'read'
                       AND pg_relation_size('suppressions'::regclass) > 0)
    EXECUTE FUNCTION suppress_listed();
CREATE TRIGGER list_suppressed AFTER INSERT OR UPDATE OF email, suppressed ON users
    FOR EACH ROW WHEN (NEW.suppressed AND NEW.deleted_at IS NULL) EXECUTE FUNCTION list_suppressed();
