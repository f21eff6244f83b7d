-- One spelling for each e-mail address: NFC, and the domain as DNS has it, so that münchen.de and xn--mnchen-3ya.de are
-- one. The program has written no other since. Two users who have one address already both keep theirs.

CREATE FUNCTION pg_temp.dns_label(label text) RETURNS text LANGUAGE plpgsql AS $$
    -- Punycode: RFC 3492, section 6.3.
DECLARE
    digits CONSTANT text := 'abcdefghijklmnopqrstuvwxyz0123456789';
    points CONSTANT integer[] := ARRAY(
        SELECT ascii(letter) FROM unnest(string_to_array(label, NULL)) WITH ORDINALITY AS given (letter, place)
        ORDER BY place);
    basic CONSTANT text := regexp_replace(label, '[^\u0001-\u007f]', '', 'g');
    encoded text := basic || CASE WHEN basic = '' THEN '' ELSE '-' END;
    handled integer := length(basic);
    reached integer := 128;
    bias integer := 72;
    delta integer := 0;
    point integer;
    next_point integer;
    rest integer;
    place integer;
    threshold integer;
BEGIN
    IF label !~ '[^\u0001-\u007f]' THEN
        RETURN label;
    END IF;
    WHILE handled < cardinality(points) LOOP
        next_point := (SELECT min(given.point) FROM unnest(points) AS given (point) WHERE given.point >= reached);
        delta := delta + (next_point - reached) * (handled + 1);
        reached := next_point;
        FOREACH point IN ARRAY points LOOP
            IF point < reached THEN
                delta := delta + 1;
            ELSIF point = reached THEN
                rest := delta;
                place := 36;
                LOOP
                    threshold := least(greatest(place - bias, 1), 26);
                    EXIT WHEN rest < threshold;
                    encoded := encoded || substr(digits, threshold + (rest - threshold) % (36 - threshold) + 1, 1);
                    rest := (rest - threshold) / (36 - threshold);
                    place := place + 36;
                END LOOP;
                encoded := encoded || substr(digits, rest + 1, 1);
                delta := delta / CASE WHEN handled = length(basic) THEN 700 ELSE 2 END;
                delta := delta + delta / (handled + 1);
                bias := 0;
                WHILE delta > 455 LOOP
                    delta := delta / 35;
                    bias := bias + 36;
                END LOOP;
                bias := bias + 36 * delta / (delta + 38);
                delta := 0;
                handled := handled + 1;
            END IF;
        END LOOP;
        delta := delta + 1;
        reached := reached + 1;
    END LOOP;
    RETURN 'xn--' || encoded;
END $$;

DO $$
DECLARE
    written record;
BEGIN
    FOR written IN
        SELECT given.id, local || '@' || (
            SELECT string_agg(pg_temp.dns_label(label), '.' ORDER BY place)
            FROM unnest(string_to_array(domain, '.')) WITH ORDINALITY AS labels (label, place)) AS address
        FROM users given,
             normalize(split_part(email, '@', 1), NFC) AS local,
             normalize(lower(normalize(split_part(email, '@', 2), NFKC)), NFC) AS domain
        WHERE deleted_at IS NULL AND email ~ '[^\u0001-\u007f]'
          -- A locale that does not know these letters would make names of hosts that nobody has.
          AND lower('ÄŞД') = 'äşд'
          -- What cannot be seen is no part of a name: such an address stays as it is.
          AND email !~ '[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800]'
          AND email !~ '[\u3164\ufe00-\ufe0f\ufeff\uffa0]'
    LOOP
        BEGIN
            UPDATE users SET email = written.address WHERE id = written.id AND email <> written.address;
        EXCEPTION WHEN unique_violation THEN
            RAISE NOTICE 'user % has the e-mail address of another user, and keeps it as it is written', written.id;
        END;
    END LOOP;
END $$;

DROP FUNCTION pg_temp.dns_label(text);
