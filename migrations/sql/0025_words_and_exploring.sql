-- May a key's calls to `auto` go to who may be better than it seems? Null: as each call says. A column that may be missing and has
-- no default rewrites nothing.
ALTER TABLE keys ADD COLUMN explore boolean;

-- What consumers wrote of answers, of keys that opted in to have content kept: sealed, until it expires. The last word on a call
-- takes the place of those before. The table is new, so nothing waits for a lock.
CREATE TABLE stored_words (
    call_id     uuid PRIMARY KEY,
    account_id  uuid NOT NULL REFERENCES accounts,
    sealed      bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL CHECK (expires_at > created_at)
);
CREATE INDEX stored_words_expiry ON stored_words (expires_at);
