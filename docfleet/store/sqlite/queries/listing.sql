-- Jobs as people look at them: many at once, without reports.

-- name: list_jobs
SELECT number, id, state, filename, suffix, size, sha256, pages, options, created_at, started_at, finished_at,
    pages_done, output, NULL AS report, error, lane, cached
FROM jobs
WHERE (:before IS NULL OR number < :before)
    AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
    AND (:filename IS NULL OR instr(lower(filename), lower(:filename)) > 0)
    AND (:created_after IS NULL OR created_at >= :created_after)
    AND (:created_before IS NULL OR created_at < :created_before)
ORDER BY number DESC LIMIT :limit

-- name: progress
SELECT id, state, pages_done, wanted FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))

-- The first shard of a job that nobody has claimed says where the job stands.
-- name: next_of_job
SELECT shards.lane, shards.turn, shards.job, shards.first_page FROM shards JOIN jobs ON jobs.number = shards.job
WHERE jobs.id = :id AND shards.state = 'queued' AND ready = 1
ORDER BY turn, shards.first_page LIMIT 1

-- name: ahead_in_queue
SELECT count(DISTINCT job) AS jobs, coalesce(sum(last_page - first_page + 1), 0) AS pages FROM shards
WHERE state = 'queued' AND ready = 1 AND job <> :job AND (
    lane = :lane AND (turn, job, first_page) < (:turn, :job, :first_page)
    OR :lane = 'batch' AND lane = 'interactive'
)

-- name: ahead_in_hand
SELECT coalesce(sum(max(wanted - pages_done, 0)), 0) AS pages FROM jobs
WHERE finished_at IS NULL AND state = 'running' AND id <> :id
