-- What was asked and where it went; no prompt and no answer is in here. Written in the settlement's own transaction.

CREATE TABLE calls (
    id                  uuid NOT NULL,
    created_at          timestamptz NOT NULL,
    account_id          uuid NOT NULL,
    key_id              text NOT NULL,
    task                text NOT NULL,
    model               text NOT NULL,
    domain              text,
    stream              boolean NOT NULL,
    status              smallint NOT NULL,
    code                text NOT NULL,
    endpoint_number     integer,
    price_version       bigint NOT NULL,
    hold_nanos          bigint NOT NULL,
    charge_nanos        bigint NOT NULL,
    tokens_in           bigint NOT NULL,
    tokens_out          bigint NOT NULL,
    ttft_ms             real,
    duration_ms         real NOT NULL,
    task_label          text,
    session_id          text,
    labels              jsonb,
    story               bytea NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX calls_of_account ON calls (account_id, id DESC);
CREATE INDEX calls_of_endpoint ON calls (endpoint_number, id DESC);
