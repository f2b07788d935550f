-- How shards and jobs end.

-- name: finish_shard
UPDATE shards
SET state = 'done', pages_done = last_page - first_page + 1, finished_at = :now, output = :output,
    report = :report, error = NULL
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job, stage, pages_done AS pages

-- name: ready_document_stage
UPDATE shards SET ready = 1
WHERE job = :job AND stage = 'document' AND ready = 0 AND NOT EXISTS (
    SELECT 1 FROM shards AS part WHERE part.job = :job AND part.stage = 'pages' AND part.state <> 'done'
)

-- name: finish_job
UPDATE jobs
SET state = :state, finished_at = :now, pages_done = :pages, output = :output, report = :report
WHERE number = :job AND state = 'running'

-- name: fail_shard
UPDATE shards SET state = 'failed', finished_at = :now, error = :error
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
RETURNING job

-- name: requeue_shard
UPDATE shards
SET state = 'queued', pages_done = 0, owner_pid = NULL, owner_started = NULL, worker_index = NULL,
    claimed_at = NULL, heartbeat_at = NULL, error = :error
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
INSERT INTO throughput (second, pages) VALUES (:second, :pages)
ON CONFLICT (second) DO UPDATE SET pages = pages + excluded.pages

-- name: forget_speed
DELETE FROM throughput WHERE second < :before
