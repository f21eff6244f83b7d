-- The answers to requests with an Idempotency-Key, for a day.

CREATE TABLE idempotency_keys (
    -- The SHA-256 of the client's name and its key. The key itself, which a client may have made of anything, is not kept.
    id bytea PRIMARY KEY,
    -- The SHA-256 of method, path and body. Null: the person whom the answer was about has been erased.
    fingerprint bytea,
    status smallint,
    headers text,
    body bytea,
    -- The user whom the answer is about.
    subject_id uuid,
    created_at timestamptz NOT NULL
);

CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_subject ON idempotency_keys (subject_id) WHERE subject_id IS NOT NULL;
