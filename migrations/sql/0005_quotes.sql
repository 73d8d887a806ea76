-- Firm quotes: what was promised to whom, until when, and which call was made on it. Their terms never change; the one
-- thing that may is the call that uses them.

CREATE TABLE quotes (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES accounts,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    price_version   bigint NOT NULL,
    -- The demands that it was made for, as the broker packs them; the tokens promised stand beside them.
    demands         bytea NOT NULL,
    tokens_in       bigint NOT NULL CHECK (tokens_in >= 0),
    choices         integer NOT NULL CHECK (choices > 0),
    ceiling_nanos   bigint NOT NULL CHECK (ceiling_nanos > 0),
    used_by         uuid,
    used_at         timestamptz,
    CHECK (expires_at > created_at AND expires_at <= created_at + interval '5 minutes'),
    CHECK ((used_by IS NULL) = (used_at IS NULL))
);
CREATE UNIQUE INDEX quotes_used_by ON quotes (used_by) WHERE used_by IS NOT NULL;
CREATE INDEX quotes_open ON quotes (account_id, expires_at) WHERE used_by IS NULL;
CREATE INDEX quotes_expiry ON quotes (expires_at);

-- What a quote promises at each endpoint, in the order in which they are tried.
CREATE TABLE quote_offers (
    quote_id            uuid NOT NULL REFERENCES quotes ON DELETE CASCADE,
    place               smallint NOT NULL CHECK (place >= 0),
    endpoint_id         uuid NOT NULL,
    endpoint_number     integer NOT NULL,
    rate_in_micros      bigint NOT NULL CHECK (rate_in_micros >= 0),
    rate_out_micros     bigint NOT NULL CHECK (rate_out_micros >= 0),
    rate_call_nanos     bigint NOT NULL CHECK (rate_call_nanos >= 0),
    tokens_out_max      bigint NOT NULL CHECK (tokens_out_max >= 0),
    expected_nanos      bigint NOT NULL CHECK (expected_nanos >= 0),
    ceiling_nanos       bigint NOT NULL CHECK (ceiling_nanos > 0),
    score               double precision NOT NULL,
    parts               jsonb NOT NULL,
    PRIMARY KEY (quote_id, place),
    UNIQUE (quote_id, endpoint_id)
);

CREATE FUNCTION refuse_other_terms() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (to_jsonb(NEW) - 'used_by' - 'used_at') <> (to_jsonb(OLD) - 'used_by' - 'used_at') THEN
        RAISE EXCEPTION 'the terms of a quote are firm' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER firm BEFORE UPDATE ON quotes FOR EACH ROW EXECUTE FUNCTION refuse_other_terms();
CREATE TRIGGER firm BEFORE UPDATE ON quote_offers FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A call that was made on a quote was charged at a quoted endpoint, at its quoted rate, for no more than was quoted.
CREATE VIEW invariant_quoted_call_is_as_quoted AS
    SELECT q.id AS quote_id, l.call_id, l.attempt, l.charge_nanos, o.ceiling_nanos
      FROM settlement_lines l
      JOIN quotes q ON q.used_by = l.call_id
      LEFT JOIN quote_offers o ON o.quote_id = q.id AND o.endpoint_id = l.endpoint_id
     WHERE l.settled_at >= (SELECT sealed_before FROM last_seal)
       AND (o.quote_id IS NULL
            OR (l.rate_in_micros, l.rate_out_micros, l.rate_call_nanos, l.price_version)
               IS DISTINCT FROM (o.rate_in_micros, o.rate_out_micros, o.rate_call_nanos, q.price_version)
            OR l.tokens_in > q.tokens_in
            OR l.tokens_out > o.tokens_out_max * q.choices
            OR l.charge_nanos > o.ceiling_nanos);
