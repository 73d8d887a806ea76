-- How well endpoints were seen to answer: a score, who says so and how much that weighs. No caller's prompt and no answer is
-- in here; `vector` is what an encoder made of a suite's prompt, half-precision numbers. Words can be read back from them, so
-- nothing that comes of a caller's call has one. Rows are only ever added: what is said anew is said by a later row. The table
-- is new, so nothing waits for a lock.
CREATE TABLE evidence (
    id              uuid PRIMARY KEY,
    at              timestamptz NOT NULL,
    endpoint_id     uuid NOT NULL REFERENCES endpoints,
    domain          text,
    source          text NOT NULL CHECK (source IN ('eval', 'feedback', 'check', 'judge')),
    grade           text NOT NULL CHECK (grade IN ('binary', 'graded')),
    score           double precision NOT NULL CHECK (score BETWEEN 0 AND 1),
    weight          double precision NOT NULL CHECK (weight BETWEEN 0 AND 1),
    account_id      uuid REFERENCES accounts,
    call_id         uuid,
    encoder         text,
    vector          bytea CHECK (octet_length(vector) BETWEEN 2 AND 8192),
    CHECK (grade = 'graded' OR score IN (0, 1)),
    CHECK ((vector IS NULL) = (encoder IS NULL)),
    CHECK (vector IS NULL OR source IN ('eval', 'judge'))
);
-- How much an account has said lately, which is how a flood is known.
CREATE INDEX evidence_of_account ON evidence (account_id, at) WHERE account_id IS NOT NULL;
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON evidence FOR EACH ROW EXECUTE FUNCTION refuse_change();
