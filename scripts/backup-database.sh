#!/usr/bin/env bash
# Dump the database into DIRECTORY, make sure that the dump can be read, and remove those older than KEEP_DAYS (30).
# The database is that of DATABASE_DIRECT_URL or DATABASE_URL or, where neither is set, of libpq's own settings, such as
# PGSERVICE. pg_dump needs a session, so the URL of a pooler in transaction mode will not do.
# Usage: backup-database.sh DIRECTORY
set -euo pipefail
umask 077

directory=${1:?usage: backup-database.sh DIRECTORY}
keep_days=${KEEP_DAYS:-30}
file=$directory/birthday_scheduler_$(date -u +%Y%m%d_%H%M%S).dump
target=()
DATABASE_URL=${DATABASE_DIRECT_URL:-${DATABASE_URL:-}}
if [ -n "$DATABASE_URL" ]; then
    # Anybody may read a command line, so the password goes the way of the environment, its %XX decoded.
    if [[ $DATABASE_URL =~ ^([a-z]+://[^:@/]*):([^@/]*)@(.*)$ ]]; then
        encoded=${BASH_REMATCH[2]//\\/\\\\}
        PGPASSWORD=$(printf '%b' "${encoded//%/\\x}")
        export PGPASSWORD
        DATABASE_URL=${BASH_REMATCH[1]}@${BASH_REMATCH[3]}
    fi
    target=(--dbname="$DATABASE_URL")
fi

mkdir -p "$directory"
# Under another name until it is whole: who copies backups must never meet half a one.
trap 'rm -f "$file.partial"' EXIT
pg_dump --format=custom --no-password --file="$file.partial" "${target[@]}"
pg_restore --list "$file.partial" | grep 'TABLE DATA .* users ' >/dev/null || { echo "error: $file lacks users" >&2; exit 1; }
mv "$file.partial" "$file"
find "$directory" -maxdepth 1 -name 'birthday_scheduler_*.dump' -mtime "+$keep_days" -delete
echo "$file"
