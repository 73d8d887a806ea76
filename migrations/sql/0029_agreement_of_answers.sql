-- How far another answer to the same prompt agreed with the one that was judged, where the two were compared, for it to be learned
-- what that is worth. A column that may be missing and has no default rewrites nothing.
ALTER TABLE evidence ADD COLUMN agreement double precision;
