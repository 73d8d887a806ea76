-- What endpoints that claim a domain are examined on, and what came of it. All tables are new, so nothing waits for a lock.

-- `items` is JSON as bytes, for jsonb would not take every text. No caller's prompt is ever put here.
CREATE TABLE suites (
    domain          text COLLATE "C" PRIMARY KEY CHECK (domain <> ''),
    owner_id        uuid REFERENCES accounts,
    items           bytea NOT NULL CHECK (octet_length(items) > 2),
    size            integer NOT NULL CHECK (size > 0),
    author          text NOT NULL CHECK (author <> ''),
    changed_at      timestamptz NOT NULL
);

-- Each run of an endpoint on the suite of a domain as it stood at `suite_at`. Of `asked` prompts `answered` have been put by
-- now; `score` is the mean over the `scored` that had an answer. A worker has it until `taken_until`, then another may.
CREATE TABLE examinations (
    id              uuid PRIMARY KEY,
    endpoint_id     uuid NOT NULL REFERENCES endpoints,
    domain          text NOT NULL,
    suite_at        timestamptz NOT NULL,
    author          text NOT NULL CHECK (author <> ''),
    status          text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'running', 'done', 'failed')),
    asked           integer NOT NULL DEFAULT 0 CHECK (asked >= 0),
    answered        integer NOT NULL DEFAULT 0 CHECK (answered BETWEEN 0 AND asked),
    scored          integer CHECK (scored BETWEEN 1 AND answered),
    score           double precision CHECK (score BETWEEN 0 AND 1),
    problem         text,
    created_at      timestamptz NOT NULL,
    taken_until     timestamptz,
    started_at      timestamptz,
    ended_at        timestamptz,
    CHECK ((ended_at IS NULL) = (status IN ('waiting', 'running'))),
    CHECK ((problem IS NOT NULL) = (status = 'failed')),
    CHECK ((score IS NOT NULL) = (status = 'done') AND (scored IS NOT NULL) = (status = 'done'))
);
CREATE UNIQUE INDEX examinations_open ON examinations (endpoint_id, domain) WHERE ended_at IS NULL;
CREATE INDEX examinations_of_endpoint ON examinations (endpoint_id, domain, id);

-- Calls that the broker makes for itself, to try endpoints: nobody is charged for them, so a receipt of one is no surprise.
-- Rows go after some weeks.
CREATE TABLE test_calls (
    id              uuid PRIMARY KEY,
    endpoint_id     uuid NOT NULL REFERENCES endpoints,
    at              timestamptz NOT NULL
);
CREATE INDEX test_calls_at ON test_calls (at);
