-- A process that starts reads the newest of each source at each endpoint, and nothing else of a table that only grows. The
-- table is young: what is read of it while the index is built waits for nothing, what is written for some seconds.
CREATE INDEX evidence_of_each ON evidence (endpoint_id, source, id);
