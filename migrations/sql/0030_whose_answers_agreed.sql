-- Whose the answer was that a judged one was compared with: of the same model once more, or of another. It is learned apart, for
-- models err alike with themselves more than with others. Neither a column that may be missing and has no default nor a
-- constraint of rows to come looks at those that are there.
ALTER TABLE evidence ADD COLUMN compared text;
ALTER TABLE evidence ADD CONSTRAINT evidence_compared CHECK
    (compared IS NULL OR (compared IN ('sample', 'model') AND agreement IS NOT NULL)) NOT VALID;
