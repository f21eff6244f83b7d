-- The id of a message follows from what it is for. It is the idempotency key: a database that was restored from a backup
-- plans what it has forgotten under the keys that the receiver knows.

CREATE FUNCTION message_id(user_id uuid, message_type text, occasion_on date, schedule_from timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    -- RFC 9562, section 5.8 (version 8): the milliseconds of the date, so that neighbours in time are neighbours in the
    -- index, then a digest. A user whose birthday or zone moves gets another schedule_from, so no id comes twice.
    RETURN overlay(overlay(overlay(
        md5(uuid_send(user_id) || timestamptz_send(schedule_from) || message_type::bytea)
            PLACING lpad(to_hex((occasion_on - date '1970-01-01') * 86400000::bigint), 12, '0') FROM 1 FOR 12)
            PLACING '8' FROM 13 FOR 1)
            PLACING 'a' FROM 17 FOR 1)::uuid;
