-- How often a message has failed, counted as an attempt or not; when it last did; and whether others were delivered
-- between two of its failures, so that it is at fault itself. Probes of an open circuit are chosen by these.
ALTER TABLE message_logs
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN failed_at timestamptz,
    ADD COLUMN blamed boolean NOT NULL DEFAULT false;
