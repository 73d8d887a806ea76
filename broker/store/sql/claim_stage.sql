-- What a key stands for. $1: the account; $2: the key; $3: now. One statement sees one moment of the books: a process
-- that is not listed has had all its holds closed, so its settlement, if there is one, is seen with that.
SELECT k.request_sha256, k.call_id, k.key_id, s.charge_nanos, c.code,
       CASE WHEN k.call_id IS NULL THEN CASE WHEN k.expires_at <= $3::timestamptz THEN 'free' ELSE 'no call' END
            WHEN EXISTS (SELECT FROM open_holds o WHERE o.call_id = k.call_id) THEN 'running'
            WHEN k.expires_at <= $3::timestamptz THEN 'free'
            WHEN s.charge_nanos > 0 OR (s.kind = 'released' AND c.code = 'served') THEN 'served'
            WHEN s.call_id IS NOT NULL OR c.id IS NOT NULL THEN 'free'
            WHEN k.free_at <= $3::timestamptz THEN 'free'
            WHEN NOT EXISTS (SELECT FROM broker_processes p WHERE p.id = k.process_id) THEN 'free'
            ELSE 'running' END AS stage
  FROM idempotency_keys k
  LEFT JOIN settlements s ON s.call_id = k.call_id AND s.settled_at >= k.created_at
  LEFT JOIN calls c ON c.id = k.call_id AND c.created_at = k.created_at
 WHERE k.account_id = $1 AND k.key = $2
