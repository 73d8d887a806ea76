-- Prompts of suites that were put to endpoints among their other traffic, and what their answers were worth; a `score` is
-- missing where no answer came. The table is new, so nothing waits for a lock.
CREATE TABLE canaries (
    id              uuid PRIMARY KEY,
    endpoint_id     uuid NOT NULL REFERENCES endpoints,
    domain          text NOT NULL,
    at              timestamptz NOT NULL,
    score           double precision CHECK (score BETWEEN 0 AND 1)
);
CREATE INDEX canaries_of_endpoint ON canaries (endpoint_id, at);
-- What traffic says of an endpoint is set beside its canaries. The table is young and hardly has rows.
CREATE INDEX evidence_of_traffic ON evidence (endpoint_id, at) WHERE source IN ('feedback', 'check');

-- The newest examination of each claim, for the console.
CREATE VIEW console_examinations AS
SELECT DISTINCT ON (x.endpoint_id, x.domain) e.number AS endpoint_number, x.domain, x.score, x.scored, x.ended_at
FROM examinations x JOIN endpoints e ON e.id = x.endpoint_id
WHERE x.status = 'done'
ORDER BY x.endpoint_id, x.domain, x.id DESC;
