-- Which examination a piece of evidence is of: a later one of the same endpoint and domain takes its place. A column that may be
-- missing and has no default rewrites nothing.
ALTER TABLE evidence ADD COLUMN run_id uuid;
