-- What operators asked of the simulator, and what came of it. Both tables are new, so nothing waits for a lock.

-- `asked` is as it was sent; `plan` what was made of it, packed, once work on it began. `cells` counts the runs that it
-- takes at most, `cells_done` those that are done. What is open is looked at every other second.
CREATE TABLE simulations (
    id              uuid PRIMARY KEY,
    name            text NOT NULL,
    author          text NOT NULL CHECK (author <> ''),
    asked           jsonb NOT NULL CHECK (jsonb_typeof(asked) = 'object'),
    status          text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    plan            text,
    cells           integer NOT NULL DEFAULT 0 CHECK (cells >= 0),
    cells_done      integer NOT NULL DEFAULT 0 CHECK (cells_done >= 0),
    problem         text,
    summary         jsonb,
    report          bytea,
    created_at      timestamptz NOT NULL,
    started_at      timestamptz,
    ended_at        timestamptz,
    CHECK ((ended_at IS NULL) = (status IN ('waiting', 'running'))),
    CHECK ((problem IS NOT NULL) = (status = 'failed')),
    CHECK ((report IS NOT NULL) = (status = 'done'))
);
CREATE INDEX simulations_open ON simulations (created_at) WHERE ended_at IS NULL;

-- Each run of an order: what is to be run, and what came of it. They go when the order ends; its report stays.
CREATE TABLE simulation_cells (
    simulation_id   uuid NOT NULL REFERENCES simulations,
    key             text NOT NULL,
    cell            text NOT NULL,
    outcome         text,
    sent_at         timestamptz NOT NULL,
    PRIMARY KEY (simulation_id, key)
);
