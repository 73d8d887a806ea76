-- A row that no month had room for when it came makes its month fail to be made. Each partition is made by itself, so that what
-- fails stops no other; rows that may be moved are taken along, and records that nobody may change stay where they are, which is
-- in the same table for all who read it. Only functions change, so nothing waits for a lock.
CREATE FUNCTION missing_partitions(first_day date, months integer)
RETURNS TABLE (parent regclass, other regclass, key name, name text, low text, high text) LANGUAGE sql STABLE AS $$
    SELECT p.partrelid, NULLIF(p.partdefid, 0)::regclass, a.attname, n.name,
           CASE WHEN a.atttypid = 'uuid'::regtype THEN id_at(m.begins)::text ELSE m.begins::text END,
           CASE WHEN a.atttypid = 'uuid'::regtype THEN id_at(m.ends)::text ELSE m.ends::text END
      FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
      CROSS JOIN LATERAL (SELECT month AT TIME ZONE 'UTC' AS begins, (month + interval '1 month') AT TIME ZONE 'UTC' AS ends, month
                            FROM generate_series(0, months - 1) AS step,
                                 date_trunc('month', first_day::timestamp + make_interval(months => step)) AS month) m
      CROSS JOIN LATERAL (SELECT c.relname || to_char(m.month, '_YYYYMM') AS name) n
     WHERE c.relnamespace = current_schema()::regnamespace AND to_regclass(format('%I', n.name)) IS NULL
     ORDER BY c.relname, m.month
$$;

CREATE FUNCTION make_partition(parent regclass, other regclass, key name, name text, low text, high text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    strays boolean := false;
    bounds text := format('FOR VALUES FROM (%L) TO (%L)', low, high);
    within text := format('%I >= %L AND %I < %L', key, low, key, high);
BEGIN
    IF other IS NOT NULL AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = parent AND tgname = 'immutable') THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %s)', other, within) INTO strays;
    END IF;
    IF NOT strays THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF %s %s', name, parent, bounds);
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    EXECUTE format('WITH strays AS (DELETE FROM %s WHERE %s RETURNING *) INSERT INTO %I SELECT * FROM strays', other, within, name);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I %s', parent, name, bounds);
END $$;

CREATE OR REPLACE FUNCTION make_partitions(first_day date, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    missing record;
    made integer := 0;
BEGIN
    FOR missing IN SELECT * FROM missing_partitions(first_day, months) LOOP
        BEGIN
            PERFORM make_partition(missing.parent, missing.other, missing.key, missing.name, missing.low, missing.high);
            made := made + 1;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'partition % was not made: %', missing.name, SQLERRM;
        END;
    END LOOP;
    RETURN made;
END $$;
