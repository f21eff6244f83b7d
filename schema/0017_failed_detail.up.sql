-- The same with the beginning of error_detail, such as 'outcome unknown'; null is no condition.
CREATE FUNCTION is_selected(
    m message_logs, error_type text, user_id uuid, failed_from timestamptz, failed_before timestamptz,
    message_id uuid, http_status integer, message_type text, detail text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT is_selected(m, error_type, user_id, failed_from, failed_before, message_id, http_status, message_type)
       AND (detail IS NULL OR starts_with(m.error_detail, detail))
$$;
