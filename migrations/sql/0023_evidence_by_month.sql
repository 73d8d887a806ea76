-- Evidence by months, for old months to be dropped whole: rows are only ever added, and one by one they cannot go. The key is the
-- id, which rises with the time of writing and which evidence is read by. All that is there becomes the partition of this month
-- and of whatever was before; nothing is rewritten, and its indexes become parts of the new ones. The old rows are looked at twice,
-- for each of two bounds, while only evidence is locked: what reads and writes it is done beside the calls, and tried again. Then
-- the foreign keys lock `accounts` and `endpoints`, against readers as well, for as long as the catalog's changes take. Who
-- upgrades waits for no lock for more than a few seconds, for whoever comes later waits behind it, and then tries again.
CREATE FUNCTION id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- How sure a model was of the answer that was judged: the mean probability of its tokens, where that is known.
ALTER TABLE evidence ADD COLUMN confidence double precision CHECK (confidence BETWEEN 0 AND 1);

DO $$
DECLARE
    month date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    begun text := 'evidence' || to_char(month, '_YYYYMM');
    bound uuid := id_at(((month + interval '1 month')::date::text || ' 00:00:00+00')::timestamptz);
    index_name text;
BEGIN
    DROP TRIGGER immutable ON evidence;
    DROP TRIGGER IF EXISTS not_truncated ON evidence;
    FOR index_name IN SELECT indexname FROM pg_indexes WHERE tablename = 'evidence' AND schemaname = current_schema()
    LOOP
        EXECUTE format('ALTER INDEX %I RENAME TO %I', index_name, begun || substr(index_name, length('evidence') + 1));
    END LOOP;
    EXECUTE format('ALTER TABLE evidence RENAME TO %I', begun);
    EXECUTE format('CREATE TABLE evidence (LIKE %I INCLUDING CONSTRAINTS, PRIMARY KEY (id))
        PARTITION BY RANGE (id)', begun);
    CREATE INDEX evidence_of_account ON evidence (account_id, at) WHERE account_id IS NOT NULL;
    CREATE INDEX evidence_of_each ON evidence (endpoint_id, source, id);
    CREATE INDEX evidence_of_traffic ON evidence (endpoint_id, at) WHERE source IN ('feedback', 'check');
    EXECUTE format('ALTER TABLE %I ADD CHECK (id < %L)', begun, bound);
    -- From here on others than evidence are locked, and no row is looked at.
    ALTER TABLE evidence ADD FOREIGN KEY (endpoint_id) REFERENCES endpoints,
        ADD FOREIGN KEY (account_id) REFERENCES accounts;
    EXECUTE format('ALTER TABLE evidence ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)', begun, bound);
    CREATE TABLE evidence_other PARTITION OF evidence DEFAULT;
END $$;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON evidence FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Every table that is partitioned by a time, or by ids that rise with it, gets its months.
CREATE OR REPLACE FUNCTION make_partitions(first_day date, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent record;
    month date;
    begins timestamptz;
    ends timestamptz;
    made integer := 0;
BEGIN
    FOR parent IN
        SELECT c.relname AS name, a.atttypid = 'uuid'::regtype AS by_id
          FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
         WHERE c.relnamespace = current_schema()::regnamespace ORDER BY c.relname
    LOOP
        FOR step IN 0 .. months - 1 LOOP
            month := (date_trunc('month', first_day) + make_interval(months => step))::date;
            begins := (month::text || ' 00:00:00+00')::timestamptz;
            ends := ((month + interval '1 month')::date::text || ' 00:00:00+00')::timestamptz;
            IF to_regclass(format('%I', parent.name || to_char(month, '_YYYYMM'))) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    parent.name || to_char(month, '_YYYYMM'), parent.name,
                    CASE WHEN parent.by_id THEN id_at(begins)::text ELSE begins::text END,
                    CASE WHEN parent.by_id THEN id_at(ends)::text ELSE ends::text END);
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date, 3);
SELECT refuse_truncation();

-- Drop the months of evidence that ended before a moment; the table is locked for as long as that takes, and no longer waited for
-- than two seconds: the next night comes.
CREATE FUNCTION drop_evidence_before(moment timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month text;
    dropped integer := 0;
BEGIN
    PERFORM set_config('lock_timeout', '2s', true);
    FOR month IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'evidence'::regclass AND c.relname ~ '^evidence_[0-9]{6}$'
           AND (to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC' <= moment
         ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %I', month);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;
