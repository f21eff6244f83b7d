-- The same choice as before, but while no template is published, none is ranked: that takes longer than the rest of a
-- claim's work for a template. Whether one is published is read once for each statement.
CREATE OR REPLACE FUNCTION choose_template(
    message_type text, user_locale text, OUT template text, OUT locale text, OUT version integer) RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT best.template, best.locale, best.version
    FROM (SELECT CASE a.locale WHEN 'default' THEN $1 ELSE $1 || '.' || a.locale END AS template, a.locale, a.version
          FROM (SELECT a.locale, a.version, template_rank(a.locale, $2) AS rank
                FROM active_templates a WHERE a.message_type = $1 AND a.version > 0
                UNION ALL SELECT 'default', 0, -1 WHERE $1 = 'birthday') a
          WHERE a.rank IS NOT NULL ORDER BY a.rank DESC LIMIT 1) best
    WHERE (SELECT EXISTS (SELECT FROM active_templates a WHERE a.version > 0))
    UNION ALL
    SELECT $1, 'default', 0 WHERE $1 = 'birthday' AND NOT (SELECT EXISTS (SELECT FROM active_templates a WHERE a.version > 0))
$$;
