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

-- Every shard that waits in a lane, with the turn it will have had when all before it of its caller are done.
-- The first shard of the job that nobody has claimed says where the job stands.
-- name: ahead_in_queue
WITH waiting AS MATERIALIZED (
    SELECT shards.id, shards.job, shards.lane, callers.id AS caller, shards.turn, first_page,
        last_page - first_page + 1 AS pages,
        callers.turn - (last_page - first_page + 1) + sum(last_page - first_page + 1) OVER (
            PARTITION BY callers.id ORDER BY shards.turn, shards.job, first_page ROWS UNBOUNDED PRECEDING
        ) AS due
    FROM shards JOIN callers ON callers.id = shards.caller
    WHERE state = 'queued' AND ready = 1
), own AS (
    SELECT * FROM waiting WHERE job = (SELECT number FROM jobs WHERE jobs.id = :id)
    ORDER BY turn, first_page LIMIT 1
)
SELECT count(DISTINCT waiting.job) AS jobs, coalesce(sum(waiting.pages), 0) AS pages,
    (SELECT count(*) FROM own) AS waits
FROM waiting, own
WHERE waiting.job <> own.job AND (
    waiting.lane = own.lane
        AND (waiting.due, waiting.caller, waiting.turn, waiting.job, waiting.first_page)
            < (own.due, own.caller, own.turn, own.job, own.first_page)
    OR own.lane = 'batch' AND waiting.lane = 'interactive'
)

-- name: ahead_in_hand
SELECT coalesce(sum(max(wanted - pages_done, 0)), 0) AS pages FROM jobs
WHERE finished_at IS NULL AND state = 'running' AND id <> :id
