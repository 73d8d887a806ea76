-- Evidence that no month had room for when it came is dropped as old as the months are. One by one no row can go, so the guard of
-- that one partition is lifted while it is locked against all who write; whoever reads waits for nothing. Found by the key.
CREATE OR REPLACE FUNCTION drop_evidence_before(moment timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month text;
    dropped integer := 0;
    strays integer;
    bound uuid := id_at(date_trunc('month', moment AT TIME ZONE 'UTC') AT TIME ZONE 'UTC');
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
    IF EXISTS (SELECT FROM evidence_other WHERE id < bound) THEN
        ALTER TABLE evidence_other DISABLE TRIGGER immutable;
        WITH gone AS (DELETE FROM evidence_other WHERE id < bound RETURNING at)
        SELECT count(DISTINCT date_trunc('month', at AT TIME ZONE 'UTC')) INTO strays FROM gone;
        ALTER TABLE evidence_other ENABLE TRIGGER immutable;
        dropped := dropped + strays;
    END IF;
    RETURN dropped;
END $$;
