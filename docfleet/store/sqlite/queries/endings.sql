-- How shards and jobs end.

-- name: finish_shard
UPDATE shards
SET state = 'done', pages_done = last_page - first_page + 1, finished_at = :now, output = :output,
    report = :report, error = NULL
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job, stage, pages_done AS pages, worker_index, claimed_at

-- The holder tells once more what it has delivered: the first time the disk failed after the commit.
-- name: delivered
SELECT 1 FROM shards
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'done'
    AND last_page = :last_page AND output = :output

-- What the rest of the job waits for: parts still under way, and parts that are there.
-- name: parts_so_far
SELECT
    count(*) FILTER (WHERE state IN ('queued', 'running')) AS open, count(*) FILTER (WHERE state = 'done') AS done
FROM shards WHERE job = :job AND stage IN ('pages', 'probe')

-- name: ready_last_stage
UPDATE shards SET ready = 1 WHERE job = :job AND stage IN ('document', 'whole') AND ready = 0

-- name: last_error
SELECT error FROM shards WHERE job = :job AND error IS NOT NULL ORDER BY id DESC LIMIT 1

-- name: held_shard
SELECT job, stage, first_page, last_page, attempt, halved, turn, worker_index,
    coalesce(json_extract(error, '$.excused'), 0) AS excused,
    (SELECT careful FROM jobs WHERE number = shards.job) AS careful
FROM shards
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'

-- name: drop_shard
DELETE FROM shards WHERE id = :shard

-- name: insert_half
INSERT INTO shards (
    job, stage, first_page, last_page, state, ready, turn, not_before, avoid_slot, halved, error, lane, caller,
    short
)
SELECT :job, :stage, :first_page, :last_page, 'queued', 1, :turn, :not_before, :avoid_slot, 1, :error, lane,
    coalesce(caller, 0), wanted <= :short
FROM jobs WHERE number = :job

-- name: wait_for_probes
UPDATE shards SET ready = 0, halved = 1 WHERE id = :shard

-- name: finish_job
UPDATE jobs
SET state = :state, finished_at = :now, pages_done = :pages, output = :output, report = :report
WHERE number = :job AND state = 'running'

-- name: fail_shard
UPDATE shards SET state = 'failed', finished_at = :now, error = :error
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job, stage, worker_index, last_page - first_page + 1 AS pages

-- How the last attempt ended says as well how many so far do not count: they were nobody's doing, or before the probes.
-- name: requeue_shard
UPDATE shards
SET state = 'queued', pages_done = 0, owner_pid = NULL, owner_started = NULL, worker_index = NULL,
    claimed_at = NULL, heartbeat_at = NULL, deadline_at = NULL,
    error = iif(:excused, json_set(:error, '$.excused', :excused), :error), not_before = :not_before,
    avoid_slot = :avoid_slot
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job

-- name: fail_siblings
UPDATE shards SET state = 'failed', finished_at = :now, error = :error
WHERE job = :job AND state IN ('queued', 'running')

-- name: fail_job
UPDATE jobs SET state = 'failed', finished_at = :now, error = :error
WHERE number = :job AND state IN ('queued', 'running')

-- name: count
UPDATE counters SET value = value + :increase WHERE name = :name

-- name: record_speed
INSERT INTO throughput (second, device, pages)
VALUES (:second, coalesce((SELECT device FROM workers WHERE slot = :slot), ''), :pages)
ON CONFLICT (second, device) DO UPDATE SET pages = pages + excluded.pages

-- name: forget_speed
DELETE FROM throughput WHERE second < :before
