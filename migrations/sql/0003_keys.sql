-- Keys with scopes, limits, lists of what they may ask for, and rotation. Null is no such limit. The columns have no
-- default, so that adding them rewrites nothing; the checks are validated apart, which needs no lock against readers.
ALTER TABLE keys
    ADD COLUMN scopes               text[],
    ADD COLUMN requests_per_minute  integer,
    ADD COLUMN tokens_per_minute    bigint,
    ADD COLUMN models               text[],
    ADD COLUMN providers            text[],
    ADD COLUMN domains              text[],
    -- The secret before the last rotation opens as well until `former_until`.
    ADD COLUMN former_sha256        bytea,
    ADD COLUMN former_until         timestamptz;

ALTER TABLE keys ADD CONSTRAINT keys_scopes_check
    CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['calls', 'read', 'money', 'keys', 'deployments']) NOT VALID;
ALTER TABLE keys ADD CONSTRAINT keys_rates_check CHECK (requests_per_minute > 0 AND tokens_per_minute > 0) NOT VALID;
ALTER TABLE keys ADD CONSTRAINT keys_lists_check
    CHECK (cardinality(models) > 0 AND cardinality(providers) > 0 AND cardinality(domains) > 0) NOT VALID;
ALTER TABLE keys ADD CONSTRAINT keys_former_check
    CHECK (length(former_sha256) = 32 AND (former_sha256 IS NULL) = (former_until IS NULL)) NOT VALID;
ALTER TABLE keys VALIDATE CONSTRAINT keys_scopes_check;
ALTER TABLE keys VALIDATE CONSTRAINT keys_rates_check;
ALTER TABLE keys VALIDATE CONSTRAINT keys_lists_check;
ALTER TABLE keys VALIDATE CONSTRAINT keys_former_check;

-- The key that a console session was opened with: the session may do what the key may, and ends with it.
ALTER TABLE console_sessions ADD COLUMN key_id text;
ALTER TABLE console_sessions ADD CONSTRAINT console_sessions_key_id_fkey
    FOREIGN KEY (key_id) REFERENCES keys NOT VALID;
ALTER TABLE console_sessions VALIDATE CONSTRAINT console_sessions_key_id_fkey;
