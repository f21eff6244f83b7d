-- Who changed what.

-- Append-only. The program removes what is older than retention, and the values that tell of a person who is erased.
CREATE TABLE changes (
    -- UUID version 7, so in order of time. That a user was created has the id of the user.
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    -- api:<key>, api, cli:<user@host> or link.
    actor text NOT NULL,
    action text NOT NULL,
    entity text NOT NULL,
    entity_id text NOT NULL,
    -- The values that changed. Null where there was or is none, or where the entity itself has them.
    before jsonb,
    after jsonb,
    request_id text
);

CREATE INDEX changes_by_actor ON changes (actor, id);
-- Most changes are about users. The creation of one is found by its id.
CREATE INDEX changes_by_kind ON changes (entity, id) WHERE entity <> 'user';
CREATE INDEX changes_by_entity ON changes (entity_id, id) WHERE NOT (entity = 'user' AND action = 'created');

CREATE FUNCTION keep_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'changes are only added; retention and the erasure of a person remove them';
END $$;

CREATE TRIGGER keep_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON changes FOR EACH STATEMENT
    WHEN (current_setting('birthday.changes', true) IS DISTINCT FROM 'removed') EXECUTE FUNCTION keep_changes();
