-- Which controller moves whose prices, and what tiers an offer prices. The table is new; `offers` gets a column that is
-- null in the rows there are, so nothing is rewritten, and the check on it is validated without keeping anybody from
-- writing.

-- From `valid_from` on and before `valid_to` (null: for good), unless it was ended before. Of several in force for one
-- subject the one that began last holds; a choice for an endpoint comes before one for its provider, its domain, the
-- market. `provider_id`: whose prices a choice for a provider or an endpoint moves. Only the ending of a row is ever
-- written into it.
CREATE TABLE pricing_choices (
    id              uuid PRIMARY KEY,
    scope           text NOT NULL CHECK (scope IN ('market', 'domain', 'provider', 'endpoint')),
    subject         text NOT NULL CHECK ((subject = '') = (scope = 'market')),
    provider_id     uuid REFERENCES accounts CHECK ((provider_id IS NULL) = (scope IN ('market', 'domain'))),
    controller      text NOT NULL CHECK (controller <> ''),
    parameters      jsonb NOT NULL CHECK (jsonb_typeof(parameters) = 'object'),
    schedule        jsonb CHECK (jsonb_typeof(schedule) = 'object'),
    valid_from      timestamptz NOT NULL CHECK (valid_from >= created_at),
    valid_to        timestamptz CHECK (valid_to > valid_from),
    reason          text NOT NULL,
    author          text NOT NULL CHECK (author <> ''),
    created_at      timestamptz NOT NULL,
    ended_at        timestamptz CHECK (ended_at >= created_at),
    ended_by        text,
    CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
-- The leader of the price tick reads what is not over each second.
CREATE INDEX pricing_choices_open ON pricing_choices (valid_from) WHERE ended_at IS NULL;

-- Factors by tier in basis points, such as {"flex": 5000}; null: the standard tier alone.
ALTER TABLE offers ADD COLUMN tiers jsonb;
ALTER TABLE offers ADD CONSTRAINT offers_tiers_check CHECK (jsonb_typeof(tiers) = 'object') NOT VALID;
ALTER TABLE offers VALIDATE CONSTRAINT offers_tiers_check;
