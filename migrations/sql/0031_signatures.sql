-- What an endpoint's model said that it takes and gives when it was last probed: names, datatypes and shapes, as KServe v2 has it.
-- It is no term of an offer, and an endpoint's row never changes: a later probe may find something else, and replaces it.
CREATE TABLE signatures (
    endpoint_id     uuid PRIMARY KEY REFERENCES endpoints,
    seen_at         timestamptz NOT NULL,
    signature       jsonb NOT NULL CHECK (jsonb_typeof(signature) = 'object')
);
