-- Counts that outlive jobs, workers and the server. A slot of the plan keeps its device, whichever process serves it.

-- name: tally_shard
INSERT INTO shard_tallies (device, tier, stage, bucket, shards, pages, pages_failed, seconds)
VALUES (
    coalesce((SELECT device FROM workers WHERE slot = :slot), ''), :tier, :stage, :bucket, 1, :pages, :pages_failed,
    :seconds
)
ON CONFLICT (device, tier, stage, bucket) DO UPDATE SET
    shards = shards + 1, pages = pages + excluded.pages, pages_failed = pages_failed + excluded.pages_failed,
    seconds = seconds + excluded.seconds

-- name: tally_attempt
INSERT INTO attempt_tallies (device, code, attempts, pages)
VALUES (coalesce((SELECT device FROM workers WHERE slot = :slot), ''), :code, 1, :pages)
ON CONFLICT (device, code) DO UPDATE SET attempts = attempts + 1, pages = pages + excluded.pages

-- name: count_event
INSERT INTO events (name, kind, value) VALUES (:name, :kind, :increase)
ON CONFLICT (name, kind) DO UPDATE SET value = value + excluded.value

-- name: shard_tallies
SELECT * FROM shard_tallies

-- name: attempt_tallies
SELECT * FROM attempt_tallies

-- Pages read of pieces that are not delivered yet; there are no more of these than workers.
-- name: pages_under_way
SELECT coalesce(workers.device, '') AS device, shards.pages_done AS pages, claimed_at
FROM shards LEFT JOIN workers ON workers.slot = shards.worker_index
WHERE shards.state = 'running' AND shards.stage IN ('pages', 'whole') AND shards.pages_done > 0

-- name: events
SELECT * FROM events

-- Pages of the last minute by device, and the first second in which it read one.
-- name: device_speeds
SELECT device, sum(pages) AS pages, min(second) AS recent_since
FROM throughput WHERE second BETWEEN :since AND :now GROUP BY device

-- Where a document is read in one piece, all of it fails with the last of its probes.
-- name: pages_in_one_piece
SELECT last_page - first_page + 1 AS pages FROM shards WHERE job = :job AND stage = 'whole'
