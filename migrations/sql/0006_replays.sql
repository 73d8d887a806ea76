-- Calls under an idempotency key, and the answers that keys opted in to keep.

-- Kept answers of the control plane may hold what is shown once, such as a key: from now on they are sealed. Columns
-- with constant defaults or none: nothing is rewritten, and the lock lasts a moment.
ALTER TABLE idempotency_keys
    ADD COLUMN sealed boolean NOT NULL DEFAULT false,
    -- Of a call: its id, the process that serves it, and when the key falls free should that process never say more.
    ADD COLUMN call_id uuid,
    ADD COLUMN process_id integer,
    ADD COLUMN free_at timestamptz;
ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_call_whole
    CHECK ((call_id IS NULL) = (process_id IS NULL) AND (call_id IS NULL) = (free_at IS NULL)) NOT VALID;
ALTER TABLE idempotency_keys VALIDATE CONSTRAINT idempotency_keys_call_whole;

-- A key is claimed for every call that has one, by an account that has just proved itself: the constraint's own look-up
-- would write to the account's row each time.
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_account_id_fkey;

-- What a call answered, sealed; nothing but its owner's replay or its deletion reads it. Ciphertext does not compress.
CREATE TABLE stored_answers (
    call_id     uuid PRIMARY KEY,
    account_id  uuid NOT NULL,
    sealed      bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL
);
ALTER TABLE stored_answers ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX stored_answers_expiry ON stored_answers (expires_at);
