-- What providers offer. `number` is a small dense integer by which all processes index their arrays.

CREATE TABLE deployments (
    id                  uuid PRIMARY KEY,
    number              integer NOT NULL GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0) UNIQUE,
    provider_id         uuid NOT NULL REFERENCES accounts,
    name                text NOT NULL,
    url                 text NOT NULL,
    kind                text NOT NULL CHECK (kind IN ('openai', 'kserve')),
    capacity            integer NOT NULL CHECK (capacity > 0),
    region              text NOT NULL,
    retains_data        boolean NOT NULL,
    trains_on_data      boolean NOT NULL,
    retention_days      integer NOT NULL,
    proof               text NOT NULL CHECK (proof IN ('well-known', 'dns', 'credential')),
    nonce               text NOT NULL,
    credential_sealed   bytea,
    signing_key_sealed  bytea NOT NULL,
    status              text NOT NULL
        CHECK (status IN ('unproven', 'awaiting_approval', 'failed', 'listed', 'withdrawn')),
    reports             jsonb NOT NULL DEFAULT '[]',
    approved_by         text,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    UNIQUE (provider_id, name)
);

CREATE TABLE endpoints (
    id                      uuid PRIMARY KEY,
    number                  integer NOT NULL GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0) UNIQUE,
    deployment_id           uuid NOT NULL REFERENCES deployments,
    provider_id             uuid NOT NULL REFERENCES accounts,
    name                    text NOT NULL,
    model                   text NOT NULL,
    version                 text NOT NULL,
    upstream_model          text NOT NULL,
    tasks                   text[] NOT NULL CHECK (cardinality(tasks) > 0),
    context_length_tokens   integer,
    max_output_tokens       integer,
    tokenizer_json          text,
    created_at              timestamptz NOT NULL,
    retired_at              timestamptz
);
CREATE UNIQUE INDEX endpoints_live_name ON endpoints (provider_id, name) WHERE retired_at IS NULL;
CREATE INDEX endpoints_of_deployment ON endpoints (deployment_id);

-- An endpoint's standing terms; a change ends one row and begins the next.
CREATE TABLE offers (
    endpoint_id             uuid NOT NULL REFERENCES endpoints,
    valid_from              timestamptz NOT NULL,
    valid_to                timestamptz CHECK (valid_to >= valid_from),
    domains                 jsonb NOT NULL DEFAULT '{}',
    quality                 double precision NOT NULL CHECK (quality BETWEEN 0 AND 1),
    visible_to              uuid[],
    take_bps                integer NOT NULL CHECK (take_bps BETWEEN 0 AND 10000),
    floor_in_micros         bigint NOT NULL,
    list_in_micros          bigint NOT NULL,
    ceiling_in_micros       bigint NOT NULL,
    floor_out_micros        bigint NOT NULL,
    list_out_micros         bigint NOT NULL,
    ceiling_out_micros      bigint NOT NULL,
    floor_call_nanos        bigint NOT NULL,
    list_call_nanos         bigint NOT NULL,
    ceiling_call_nanos      bigint NOT NULL,
    PRIMARY KEY (endpoint_id, valid_from),
    CHECK (0 <= floor_in_micros AND floor_in_micros <= list_in_micros AND list_in_micros <= ceiling_in_micros),
    CHECK (0 <= floor_out_micros AND floor_out_micros <= list_out_micros AND list_out_micros <= ceiling_out_micros),
    CHECK (0 <= floor_call_nanos AND floor_call_nanos <= list_call_nanos AND list_call_nanos <= ceiling_call_nanos),
    CHECK (floor_in_micros + floor_out_micros + floor_call_nanos > 0)
);
CREATE UNIQUE INDEX offers_in_force ON offers (endpoint_id) WHERE valid_to IS NULL;

-- Only changes are stored. `version` is drawn by the leader of the tick and fences a late one.
CREATE TABLE price_books (
    version     bigint PRIMARY KEY,
    at          timestamptz NOT NULL,
    controller  text NOT NULL
);

CREATE TABLE price_changes (
    endpoint_number     integer NOT NULL,
    version             bigint NOT NULL,
    at                  timestamptz NOT NULL,
    rate_in_micros      bigint NOT NULL,
    rate_out_micros     bigint NOT NULL,
    rate_call_nanos     bigint NOT NULL,
    load                real NOT NULL,
    PRIMARY KEY (endpoint_number, at, version)
) PARTITION BY RANGE (at);
