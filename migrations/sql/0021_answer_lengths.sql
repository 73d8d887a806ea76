-- How long one answer of a call was, where it came whole: `tokens_out` counts all of its answers and attempts, and those that
-- its limit cut short. No default and no rewrite, so that calls wait for a moment; of older calls nothing is known.
ALTER TABLE calls ADD COLUMN answer_tokens_out bigint;
