-- How a quoted call may be answered more than once, as the broker packs it. A column that may be missing and has no default
-- rewrites nothing, and waits for no longer than one quote takes.
ALTER TABLE quotes ADD COLUMN stages bytea;
