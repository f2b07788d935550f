-- Results that serve other jobs. A job without a reuse key neither serves nor is served.

-- name: known_documents
SELECT DISTINCT filename, suffix, size, sha256, pages FROM jobs
WHERE sha256 = :sha256 AND reuse_key IS NOT NULL AND state = 'completed'
    AND engines IN (SELECT value FROM json_each(:engines))
LIMIT 16

-- name: reusable
SELECT * FROM jobs
WHERE reuse_key = :key AND state = 'completed' AND engines IN (SELECT value FROM json_each(:engines))
ORDER BY number DESC LIMIT 1

-- A result that came since it was last looked for, else the job that is at it. One that was cut by a worker of before is
-- not waited for, if any worker is known.
-- name: follow
UPDATE jobs SET reuse_key = :key, follows = (
    SELECT leader.number FROM jobs AS leader
    WHERE leader.reuse_key = :key AND leader.number <> :job AND (
        (leader.finished_at IS NULL AND leader.follows IS NULL AND (
            leader.engines IS NULL OR :engines = '[]' OR leader.engines IN (SELECT value FROM json_each(:engines))
        ))
        OR (leader.state = 'completed' AND leader.engines IN (SELECT value FROM json_each(:engines)))
    )
    ORDER BY leader.finished_at IS NULL, leader.number DESC LIMIT 1
)
WHERE number = :job
RETURNING follows

-- Nothing of it was begun.
-- name: untouched
SELECT 1 FROM jobs WHERE number = :job AND state = 'queued'
    AND NOT EXISTS (SELECT 1 FROM shards WHERE shards.job = jobs.number AND shards.state <> 'queued')

-- Which of two jobs that wait is taken up first, in the order of `ahead_in_queue`. Only what their callers wait for is
-- looked through: this is asked for every follower of a job that waits.
-- name: first_of_two
WITH waiting AS MATERIALIZED (
    SELECT shards.job, shards.lane, callers.id AS caller, shards.turn, first_page,
        callers.turn - (last_page - first_page + 1) + sum(last_page - first_page + 1) OVER (
            PARTITION BY callers.id ORDER BY shards.turn, shards.job, first_page ROWS UNBOUNDED PRECEDING
        ) AS due
    FROM shards JOIN callers ON callers.id = shards.caller
    WHERE state = 'queued' AND ready = 1
        AND shards.caller IN (SELECT caller FROM jobs WHERE number IN (:job, :leader))
)
SELECT job FROM waiting WHERE job IN (:job, :leader)
ORDER BY lane = 'batch', due, caller, turn, job, first_page LIMIT 1

-- name: take_lead
UPDATE jobs SET follows = nullif(:job, number) WHERE number IN (:job, :leader) OR follows = :leader

-- name: hold_back
UPDATE shards SET ready = 0 WHERE job = :job

-- name: insert_served
INSERT INTO jobs (
    id, state, filename, suffix, size, sha256, pages, options, created_at, started_at, finished_at, pages_done,
    output, report, reuse_key, engines, cached, made_by, lane, wanted
)
SELECT
    :id, state, :filename, suffix, size, sha256, pages, :options, :now, :now, :now, pages_done,
    :output, report, reuse_key, engines, 1, coalesce(made_by, number), :lane, wanted
FROM jobs WHERE id = :source AND state = 'completed'

-- name: followers_due
SELECT follower.id AS follower, leader.id AS leader, leader.output, leader.report
FROM jobs AS follower JOIN jobs AS leader ON leader.number = follower.follows
WHERE follower.follows IS NOT NULL AND follower.finished_at IS NULL AND leader.state IN ('completed', 'partial')
ORDER BY follower.follows, follower.number LIMIT :limit

-- name: finish_follower
UPDATE jobs SET
    state = leader.state, started_at = coalesce(jobs.started_at, :now), finished_at = :now,
    pages_done = leader.pages_done, output = :output, report = leader.report, engines = leader.engines,
    follows = NULL, cached = 1, made_by = coalesce(leader.made_by, leader.number)
FROM (SELECT * FROM jobs WHERE id = :leader AND state IN ('completed', 'partial')) AS leader
WHERE jobs.id = :follower AND jobs.follows = leader.number AND jobs.finished_at IS NULL
RETURNING jobs.number, jobs.state

-- name: drop_shards
DELETE FROM shards WHERE job = :job

-- name: forget_result
UPDATE jobs SET reuse_key = NULL WHERE id = :id AND finished_at IS NOT NULL

-- name: shared_documents
SELECT value AS sha256 FROM json_each(:digests)
WHERE EXISTS (SELECT 1 FROM jobs WHERE jobs.sha256 = value AND reuse_key IS NOT NULL)

-- name: unmeasured
SELECT id FROM jobs WHERE bytes IS NULL AND finished_at IS NOT NULL ORDER BY number LIMIT :limit

-- name: record_size
UPDATE jobs SET bytes = :bytes WHERE id = :id AND finished_at IS NOT NULL

-- Linked files are on the disk once, as long as one of their jobs is there.
-- name: stored_bytes
SELECT coalesce(sum(bytes), 0) AS bytes
FROM (SELECT max(bytes) AS bytes FROM jobs WHERE bytes IS NOT NULL GROUP BY coalesce(made_by, number))

-- name: oldest_ended
SELECT id, bytes FROM jobs WHERE finished_at IS NOT NULL AND bytes > 0 ORDER BY finished_at, number LIMIT :limit

-- name: recycle
INSERT INTO recycling (id, slot, pid, started, since)
SELECT 1, :slot, :pid, :started, :now
WHERE NOT EXISTS (
    SELECT 1 FROM recycling AS last
    WHERE last.since > :expired AND NOT EXISTS (
        SELECT 1 FROM workers
        WHERE workers.slot = last.slot AND workers.state IN ('ready', 'busy', 'resting')
            AND (workers.pid, workers.started) <> (last.pid, last.started)
    )
)
ON CONFLICT (id) DO UPDATE SET
    slot = excluded.slot, pid = excluded.pid, started = excluded.started, since = excluded.since
RETURNING id
