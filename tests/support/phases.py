"""The phase of each status, and messages of any status, as a schema without phases takes them too."""

PHASES = {
    "scheduled": "scheduled",
    "queued": "published",
    "sending": "published",
    "retrying": "published",
    "delivered": "published",
    "failed": "undelivered",
    "expired": "undelivered",
    "cancelled": "cancelled",
}
IN_FLIGHT = {"queued", "sending", "retrying"}
INSERTION = """
    INSERT INTO message_logs (id, user_id, message_type, occasion_year, occasion_on, scheduled_at, ends_at,
                              schedule_from, status, created_at, updated_at)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'birthday', 2027, '2027-03-01', $2, $2, $2, $1, $2, $2)
"""
