-- What prompts may be about, each by examples that operators and providers wrote for the purpose: no caller's prompt is
-- ever put here. The table is new, so nothing waits for a lock; it is small, and read as a whole.
CREATE TABLE domains (
    name            text COLLATE "C" PRIMARY KEY CHECK (name <> ''),
    owner_id        uuid REFERENCES accounts,
    examples        text[] NOT NULL CHECK (cardinality(examples) BETWEEN 20 AND 200),
    author          text NOT NULL CHECK (author <> ''),
    changed_at      timestamptz NOT NULL
);
