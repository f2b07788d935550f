-- The worker's side. A lease is (shard, attempt, owner_pid, owner_started) of a shard that is running.

-- name: anything_claimable
SELECT 1 FROM shards WHERE state = 'queued' AND ready = 1 LIMIT 1

-- name: claim_next
UPDATE shards
SET state = 'running', attempt = attempt + 1, pages_done = 0, owner_pid = :pid, owner_started = :started,
    worker_index = :slot, claimed_at = :now, heartbeat_at = :now
WHERE id = coalesce(
    (SELECT id FROM shards WHERE state = 'queued' AND ready = 1 AND lane = 'batch'
        AND (SELECT streak FROM lanes WHERE lane = 'batch') >= :batch_after AND (stage <> 'whole' OR last_page - first_page < :longest)
     ORDER BY turn, job, first_page LIMIT 1),
    (SELECT id FROM shards WHERE state = 'queued' AND ready = 1 AND lane = 'interactive'
        AND (stage <> 'whole' OR last_page - first_page < :longest)
     ORDER BY turn, job, first_page LIMIT 1),
    (SELECT id FROM shards WHERE state = 'queued' AND ready = 1 AND lane = 'batch'
        AND (stage <> 'whole' OR last_page - first_page < :longest)
     ORDER BY turn, job, first_page LIMIT 1)
)
RETURNING id, job, stage, first_page, last_page, attempt, lane, turn

-- Long documents in one piece that are being read, and the workers there are to read.
-- name: long_ones
SELECT
    (SELECT count(*) FROM shards INDEXED BY shards_whole_held WHERE state = 'running' AND stage = 'whole'
        AND last_page - first_page >= :long) AS held,
    (SELECT count(*) FROM workers WHERE state IN ('ready', 'busy')) AS workers

-- name: advance_lanes
UPDATE lanes SET
    clock = CASE WHEN lane = :lane THEN max(clock, :turn) ELSE clock END,
    streak = CASE WHEN lane = :lane THEN 0 ELSE streak + 1 END

-- name: start_job
UPDATE jobs SET state = 'running', started_at = :now WHERE number = :job AND state = 'queued'

-- name: claimed_job
SELECT id AS job_id, filename, suffix, size, sha256, pages, options FROM jobs WHERE number = :job

-- name: finished_parts
SELECT output FROM shards WHERE job = :job AND stage = 'pages' AND state = 'done' ORDER BY first_page, id

-- name: beat
UPDATE shards
SET heartbeat_at = :now, pages_done = max(pages_done, min(:pages_done, last_page - first_page + 1))
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job

-- The document stage goes over pages that the page stage has counted already.
-- name: advance_job
UPDATE jobs SET pages_done = counted.pages
FROM (SELECT sum(pages_done) AS pages FROM shards WHERE job = :job AND stage <> 'document') AS counted
WHERE number = :job AND jobs.pages_done < counted.pages

-- name: announce
INSERT INTO workers (
    slot, pid, started, device, state, detail, heartbeat_at, started_at, shard_id, documents_done, pages_done, rss
) VALUES (
    :slot, :pid, :started, :device, :state, :detail, :heartbeat_at, :started_at, :shard_id, :documents_done,
    :pages_done, :rss
)
ON CONFLICT (slot) DO UPDATE SET
    pid = excluded.pid, started = excluded.started, device = excluded.device, state = excluded.state,
    detail = excluded.detail, heartbeat_at = excluded.heartbeat_at, started_at = excluded.started_at,
    shard_id = excluded.shard_id, documents_done = excluded.documents_done, pages_done = excluded.pages_done,
    rss = excluded.rss
