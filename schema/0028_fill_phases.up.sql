-- In order of id, as workers lock messages.
UPDATE message_logs m
SET phase = message_phase(m.status),
    queued_at = CASE WHEN message_phase(m.status) = 'in_flight' THEN coalesce(m.queued_at, m.updated_at)
                     ELSE m.queued_at END
FROM (SELECT id FROM message_logs WHERE status <> 'delivered' ORDER BY id FOR UPDATE) held
WHERE m.id = held.id AND m.phase <> message_phase(m.status);
