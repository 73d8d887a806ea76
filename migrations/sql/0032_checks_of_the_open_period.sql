-- The checks of each minute fold what came after the last seal. As a sub-select, when that was is known to nobody who plans a
-- query: a third of all records was taken to be newer, and whole months were read, hashed and sorted for one day. The check
-- tells it beforehand (`broker.sealed_before`, for its transaction alone); the planner then sees it, and goes by indexes. Who
-- asks a view without it gets the same rows, slower.
CREATE FUNCTION seal_on_record() RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT sealed_before FROM last_seal);
END $$;
-- Without a sub-select of its own it becomes a part of the query that calls it.
CREATE FUNCTION sealed_before() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(current_setting('broker.sealed_before', true), '')::timestamptz, seal_on_record())
$$;
DO $$
DECLARE
    asked record;
BEGIN
    FOR asked IN
        SELECT viewname, pg_get_viewdef(format('%I', viewname)::regclass) AS query FROM pg_views
         WHERE schemaname = current_schema() AND viewname LIKE 'invariant\_%' AND definition LIKE '%last_seal%'
    LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %I AS %s', asked.viewname,
            regexp_replace(asked.query, '\(\s*SELECT last_seal\.sealed_before\s+FROM last_seal\)', 'sealed_before()', 'g'));
    END LOOP;
END $$;

-- A settlement is not older than its call: said of both, neither is looked for among the older ones. Calls are found by their
-- ids, which rise with the time of admission: an hour is far more than two clocks of a machine are apart. Of their times no
-- summary would tell anything, for small rows fill what large ones left of old pages.
CREATE OR REPLACE VIEW invariant_served_call_is_settled AS
    SELECT c.id, c.charge_nanos, s.charge_nanos AS settled_nanos
      FROM calls c
      LEFT JOIN settlements s ON s.call_id = c.id AND s.settled_at >= c.created_at AND s.settled_at >= sealed_before()
     WHERE c.id >= id_at(greatest(sealed_before(), '1970-01-02') - interval '1 hour') AND c.created_at >= sealed_before()
       AND c.hold_nanos > 0 AND c.charge_nanos IS DISTINCT FROM s.charge_nanos;

-- Holds had no index by time. A summary of pages costs the hot path as good as nothing. Small partitions get it here, the others
-- by a job of the worker, which builds it without keeping anybody waiting.
CREATE INDEX held_by_time ON ONLY holds USING brin (created_at) WITH (autosummarize = on);
DO $$
DECLARE
    missing record;
BEGIN
    FOR missing IN SELECT * FROM missing_indexes WHERE size_bytes < 64 * 1024 * 1024 LOOP
        EXECUTE replace(missing.build, 'CONCURRENTLY ', '');
        EXECUTE missing.attach;
    END LOOP;
END $$;
