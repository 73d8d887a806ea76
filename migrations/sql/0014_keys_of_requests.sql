-- Which key sent a request, and which process uses a quote. The columns are null for what stands, which rewrites nothing.

-- What was answered is told again to the key that asked, not to another of its account. Empty for a caller without a key,
-- null for requests of before, which any key may send again until they expire.
ALTER TABLE idempotency_keys ADD COLUMN key_id text COLLATE "C";

-- Of a quote that is used by a call without a hold: should this process be dead, the quote is open again.
ALTER TABLE quotes ADD COLUMN used_process integer;
CREATE OR REPLACE FUNCTION refuse_other_terms() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (to_jsonb(NEW) - 'used_by' - 'used_at' - 'used_process')
       <> (to_jsonb(OLD) - 'used_by' - 'used_at' - 'used_process') THEN
        RAISE EXCEPTION 'the terms of a quote are firm' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
