-- Which groups of prompts a caller's prompt was of, a few small numbers and the key of who placed it, for its feedback to teach
-- these as well. Neither words nor vectors can be read back from them. A column that may be missing and has no default rewrites
-- nothing.
ALTER TABLE evidence ADD COLUMN groups text;
