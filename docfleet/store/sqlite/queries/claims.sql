-- The worker's side. A lease is (shard, attempt, owner_pid, owner_started) of a shard that is running.

-- name: anything_claimable
SELECT 1 FROM shards WHERE state = 'queued' AND ready = 1 AND not_before <= :now LIMIT 1

-- A shard that failed goes to another worker: the one that failed takes it only if no other did for a while, or
-- there is no other. What is due is looked through lane by lane, each in the order of its index.
-- name: claim_next
WITH due AS NOT MATERIALIZED (
    SELECT id, lane, turn, job, first_page FROM shards
    WHERE state = 'queued' AND ready = 1 AND not_before <= :now AND (
        avoid_slot IS NULL OR avoid_slot <> :slot OR not_before + :patience <= :now
        OR NOT EXISTS (SELECT 1 FROM workers WHERE slot <> :slot AND state IN ('ready', 'busy'))
    ) AND (stage <> 'whole' OR last_page - first_page < :longest)
)
UPDATE shards
SET state = 'running', attempt = attempt + 1, pages_done = 0, owner_pid = :pid, owner_started = :started,
    worker_index = :slot, claimed_at = :now, heartbeat_at = :now, deadline_at = NULL
WHERE id = coalesce(
    (SELECT id FROM due
     WHERE lane = 'batch' AND (SELECT streak FROM lanes WHERE lane = 'batch') >= :batch_after
     ORDER BY turn, job, first_page LIMIT 1),
    (SELECT id FROM due WHERE lane = 'interactive' ORDER BY turn, job, first_page LIMIT 1),
    (SELECT id FROM due WHERE lane = 'batch' ORDER BY turn, job, first_page LIMIT 1)
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

-- name: clock_of_lane
SELECT clock FROM lanes WHERE lane = :lane

-- name: serving
SELECT count(*) AS workers FROM workers WHERE state IN ('ready', 'busy')

-- name: limit
UPDATE shards SET deadline_at = :deadline
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job

-- A whole shard gives way to the shards that it is cut into.
-- name: take_apart
DELETE FROM shards
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
    AND stage = 'whole' AND halved = 0
RETURNING job, turn

-- name: keep_decisions
UPDATE jobs SET decisions = :decisions WHERE number = :job

-- name: start_job
UPDATE jobs SET state = 'running', started_at = :now WHERE number = :job AND state = 'queued'

-- name: claimed_job
SELECT id AS job_id, filename, suffix, size, sha256, pages, options, decisions,
    EXISTS (SELECT 1 FROM poison WHERE poison.sha256 = jobs.sha256 AND poison.until > :now) AS killed_workers
FROM jobs WHERE number = :job

-- name: finished_parts
SELECT output FROM shards WHERE job = :job AND stage = 'pages' AND state = 'done' ORDER BY first_page, id

-- name: pages_given_up
SELECT first_page, error FROM shards
WHERE job = :job AND stage IN ('pages', 'probe') AND state = 'failed' AND first_page BETWEEN :first AND :last
ORDER BY first_page

-- name: beat
UPDATE shards
SET heartbeat_at = :now, pages_done = max(pages_done, min(:pages_done, last_page - first_page + 1))
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job

-- The document stage goes over pages that the page stage has counted already.
-- name: advance_job
UPDATE jobs SET pages_done = counted.pages
FROM (SELECT sum(pages_done) AS pages FROM shards WHERE job = :job AND stage IN ('pages', 'whole')) AS counted
WHERE number = :job AND jobs.pages_done < counted.pages
