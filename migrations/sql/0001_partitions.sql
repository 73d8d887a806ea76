-- Partitions by month. The default partition catches what no month does, so that no write ever fails for want of one.

CREATE FUNCTION ensure_partitions(first_day date, months integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    month date;
    made integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['holds', 'settlements', 'settlement_lines', 'calls', 'price_changes'] LOOP
        FOR step IN 0 .. months - 1 LOOP
            month := (date_trunc('month', first_day) + make_interval(months => step))::date;
            IF to_regclass(format('%I', parent || to_char(month, '_YYYYMM'))) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    parent || to_char(month, '_YYYYMM'), parent,
                    (month::text || ' 00:00:00+00')::timestamptz,
                    ((month + interval '1 month')::date::text || ' 00:00:00+00')::timestamptz);
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

CREATE TABLE holds_other PARTITION OF holds DEFAULT;
CREATE TABLE settlements_other PARTITION OF settlements DEFAULT;
CREATE TABLE settlement_lines_other PARTITION OF settlement_lines DEFAULT;
CREATE TABLE calls_other PARTITION OF calls DEFAULT;
CREATE TABLE price_changes_other PARTITION OF price_changes DEFAULT;
SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date, 3);

CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON holds FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON settlements FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON settlement_lines FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON seals FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON seal_periods FOR EACH ROW EXECUTE FUNCTION refuse_change();
