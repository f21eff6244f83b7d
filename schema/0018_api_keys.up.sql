-- Keys of clients. A key is shown once, when it is made; only its SHA-256 is stored.
CREATE TABLE api_keys (
    -- A part of the key that is no secret, so that a key that was found somewhere can be looked up.
    id text PRIMARY KEY,
    -- Who the client is. A rotation adds a row of the same name.
    name text NOT NULL,
    scope text NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
    digest bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    -- Set by a rotation: the key is accepted until then, beside its successor.
    replaced_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
);

-- Rows stay: a table that has become empty would open the API to everybody on its host.
CREATE TRIGGER refuse_change BEFORE DELETE OR TRUNCATE ON api_keys FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
