-- The doors' side. Lists of ids come as one JSON array, whatever their number.

-- name: insert_job
INSERT INTO jobs (id, state, filename, suffix, size, sha256, pages, options, created_at, lane, wanted, kept,
    caller)
VALUES (:id, 'queued', :filename, :suffix, :size, :sha256, :pages, :options, :now, :lane, :wanted, :kept, :caller)

-- name: insert_shard
INSERT INTO shards (job, stage, first_page, last_page, state, ready, turn, seconds, lane, caller, short)
SELECT :job, :stage, :first_page, :last_page, 'queued', :ready, :turn, :seconds, lane, coalesce(caller, 0),
    wanted <= :short
FROM jobs WHERE number = :job

-- name: job
SELECT * FROM jobs WHERE id = :id

-- name: states
SELECT id, state FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- name: shards
SELECT shards.*, jobs.id AS job_id, jobs.sha256 FROM shards JOIN jobs ON jobs.number = shards.job
WHERE jobs.id = :id
ORDER BY first_page, last_page, shards.id

-- name: workers
SELECT * FROM workers ORDER BY slot

-- name: remove
DELETE FROM jobs WHERE id = :id

-- name: totals
SELECT
    (SELECT value FROM counters WHERE name = 'completed') AS completed,
    (SELECT value FROM counters WHERE name = 'partial') AS partial,
    (SELECT value FROM counters WHERE name = 'failed') AS failed,
    (SELECT value FROM counters WHERE name = 'cancelled') AS cancelled,
    (SELECT value FROM counters WHERE name = 'refused') AS refused,
    (SELECT value FROM counters WHERE name = 'pages') AS pages,
    (SELECT value FROM counters WHERE name = 'retries') AS retries,
    (SELECT value FROM counters WHERE name = 'cached') AS cached,
    (SELECT value FROM counters WHERE name = 'recycled') AS recycled,
    (SELECT jobs FROM backlog) AS backlog_jobs,
    (SELECT pages FROM backlog) AS backlog_pages,
    (SELECT count(*) FROM jobs WHERE finished_at IS NULL AND state = 'queued') AS queued_jobs,
    (SELECT count(*) FROM jobs WHERE finished_at IS NULL AND state = 'running') AS running_jobs,
    (SELECT coalesce(sum(last_page - first_page + 1), 0) FROM shards
     WHERE state = 'queued' AND ready = 1 AND stage IN ('pages', 'whole')) AS queued_pages
