-- Writes call records that belong to no hold. $1: the records as JSON. A record written before is left as it is.
INSERT INTO calls (id, created_at, account_id, key_id, task, model, domain, stream, status, code, endpoint_number,
    price_version, hold_nanos, charge_nanos, tokens_in, tokens_out, ttft_ms, duration_ms, task_label, session_id,
    labels, story, answer_tokens_out)
SELECT r.id, r.created_at, r.account_id, r.key_id, r.task, r.model, r.domain, r.stream, r.status, r.code,
       r.endpoint_number, r.price_version, r.hold_nanos, r.charge_nanos, r.tokens_in, r.tokens_out, r.ttft_ms,
       r.duration_ms, r.task_label, r.session_id, r.labels_json::jsonb, decode(r.story, 'base64'),
       r.answer_tokens_out
  FROM json_to_recordset(convert_from($1::bytea, 'UTF8')::json) AS r(
    id uuid, created_at timestamptz, account_id uuid, key_id text, task text, model text, domain text,
    stream boolean, status smallint, code text, endpoint_number integer, price_version bigint, hold_nanos bigint,
    charge_nanos bigint, tokens_in bigint, tokens_out bigint, ttft_ms real, duration_ms real, task_label text,
    session_id text, labels_json text, story text, answer_tokens_out bigint)
ON CONFLICT DO NOTHING
