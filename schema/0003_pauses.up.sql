-- What operators have paused. Every process reads it every two seconds.

CREATE TABLE pauses (
    message_type text PRIMARY KEY,
    is_paused boolean NOT NULL,
    -- The last pause or resume: when, and the user and host that asked for it.
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL
);
