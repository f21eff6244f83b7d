-- What lists of users are selected by, and read in order of. Built without holding up writers.

-- What has changed since an instant, in order of change.
DROP INDEX CONCURRENTLY IF EXISTS users_updated;
CREATE INDEX CONCURRENTLY users_updated ON users (updated_at, id) WHERE deleted_at IS NULL;

-- The beginning of a first, last or full name. Compared byte by byte, as a search by prefix needs it.
DROP INDEX CONCURRENTLY IF EXISTS users_by_name;
CREATE INDEX CONCURRENTLY users_by_name ON users (lower(first_name || ' ' || last_name) COLLATE "C")
    WHERE deleted_at IS NULL;
DROP INDEX CONCURRENTLY IF EXISTS users_by_last_name;
CREATE INDEX CONCURRENTLY users_by_last_name ON users (lower(last_name || ' ' || first_name) COLLATE "C")
    WHERE deleted_at IS NULL;

-- Few users are.
DROP INDEX CONCURRENTLY IF EXISTS users_suppressed;
CREATE INDEX CONCURRENTLY users_suppressed ON users (id) WHERE suppressed AND deleted_at IS NULL;

-- Whether a list that is selected by these means this user. Null is no condition.
CREATE FUNCTION is_listed(
    u users, email text, external_id text, name text, timezone text, birth_month_day smallint, suppressed boolean,
    updated_after timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (email IS NULL OR lower(u.email) = lower(email))
       AND (external_id IS NULL OR u.external_id = external_id)
       AND (name IS NULL OR starts_with(lower(u.first_name || ' ' || u.last_name), lower(name))
                         OR starts_with(lower(u.last_name || ' ' || u.first_name), lower(name)))
       AND (timezone IS NULL OR u.timezone = timezone)
       AND (birth_month_day IS NULL OR u.birth_month_day = birth_month_day)
       AND (suppressed IS NULL OR u.suppressed = suppressed)
       AND (updated_after IS NULL OR u.updated_at > updated_after)
$$;
