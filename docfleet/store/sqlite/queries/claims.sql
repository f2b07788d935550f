-- The worker's side. A lease is (shard, attempt, owner_pid, owner_started) of a shard that is running.

-- name: anything_claimable
SELECT 1 FROM shards WHERE state = 'queued' AND ready = 1 AND not_before <= :now LIMIT 1

-- A shard that failed goes to another worker: the one that failed takes it only if no other did for a while, or
-- there is no other. One that engines like this worker's have refused is left to the others as long as there are any
-- (see `another_may_read`). What is due is looked through lane by lane, caller by caller, each in the order of its index.
-- name: claim_next
WITH due AS NOT MATERIALIZED (
    SELECT id, caller, turn, job, first_page FROM shards
    WHERE state = 'queued' AND ready = 1 AND not_before <= :now AND (
        avoid_slot IS NULL OR avoid_slot <> :slot OR not_before + :patience <= :now
        OR NOT EXISTS (SELECT 1 FROM workers WHERE slot <> :slot AND state IN ('ready', 'busy'))
    ) AND seconds < :longest AND short >= :shortness AND (
        refused IS NULL
        OR (SELECT engines FROM workers WHERE slot = :slot) NOT IN (SELECT value FROM json_each(shards.refused))
        OR NOT EXISTS (
            SELECT 1 FROM workers
            WHERE (
                workers.state IN ('ready', 'busy', 'resting') OR (shards.stage <> 'whole' AND (
                    workers.state IN ('starting', 'loading', 'recycling')
                    OR (workers.state = 'gone' AND workers.heartbeat_at > :now - :respite)
                ))
            ) AND workers.engines NOT IN (SELECT value FROM json_each(shards.refused))
        )
    )
)
UPDATE shards
SET state = 'running', attempt = attempt + 1, pages_done = 0, owner_pid = :pid, owner_started = :started,
    worker_index = :slot, claimed_at = :now, heartbeat_at = :now, deadline_at = NULL
WHERE id = coalesce(
    (SELECT due.id FROM callers CROSS JOIN due ON due.caller = callers.id
     WHERE callers.lane = 'batch' AND (SELECT streak FROM lanes WHERE lane = 'batch') >= :batch_after
     ORDER BY callers.turn, callers.id, due.turn, due.job, due.first_page LIMIT 1),
    (SELECT due.id FROM callers CROSS JOIN due ON due.caller = callers.id WHERE callers.lane = 'interactive'
     ORDER BY callers.turn, callers.id, due.turn, due.job, due.first_page LIMIT 1),
    (SELECT due.id FROM callers CROSS JOIN due ON due.caller = callers.id WHERE callers.lane = 'batch'
     ORDER BY callers.turn, callers.id, due.turn, due.job, due.first_page LIMIT 1)
)
RETURNING id, job, stage, first_page, last_page, attempt, lane, turn, caller, seconds

-- Long pieces that cannot be cut and are being read, and the workers there are to read.
-- name: long_ones
SELECT
    (SELECT count(*) FROM shards INDEXED BY shards_long_held WHERE state = 'running' AND seconds > 0
        AND seconds >= :long AND id <> :but) AS held,
    (SELECT count(*) FROM workers WHERE state IN ('ready', 'busy')) AS workers

-- The caller's turn moves on; what it could have had before now is not kept for it.
-- A short document that waits while nobody is free, and for whom the holder of a long document's pages should make
-- room: it has read as many pages as the short one has, and has as many left. Its caller is not ahead of the holder's.
-- name: short_waits
WITH own AS (
    SELECT shards.job, shards.lane, shards.caller, callers.turn, worker_index AS slot
    FROM shards JOIN callers ON callers.id = shards.caller
    WHERE shards.id = :shard
)
SELECT 1 FROM own, shards INDEXED BY shards_short
    JOIN jobs ON jobs.number = shards.job JOIN callers ON callers.id = shards.caller
WHERE shards.state = 'queued' AND shards.ready = 1 AND shards.short = 1
    AND shards.not_before <= :now AND (shards.avoid_slot IS NULL OR shards.avoid_slot <> own.slot)
    AND NOT EXISTS (
        SELECT 1 FROM workers
        WHERE workers.slot = own.slot AND workers.engines IN (SELECT value FROM json_each(shards.refused))
    )
    AND shards.job <> own.job AND jobs.wanted <= :most
    AND (shards.lane = 'interactive' OR own.lane = 'batch')
    AND (shards.lane <> own.lane OR shards.caller = own.caller OR callers.turn <= own.turn)
    AND NOT EXISTS (SELECT 1 FROM workers WHERE state = 'ready')
LIMIT 1

-- The pages that were read are delivered as a shard of their own; the rest is taken up again in its old turn.
-- name: deliver_so_far
UPDATE shards
SET state = 'done', last_page = first_page + :pages - 1, pages_done = :pages, finished_at = :now, output = :output,
    report = '{}', error = NULL
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
    AND stage = 'pages' AND :pages BETWEEN 1 AND last_page - first_page
RETURNING job, caller, worker_index, claimed_at

-- name: queue_rest
INSERT INTO shards (job, stage, first_page, last_page, state, ready, turn, halved, lane, caller, short)
SELECT job, stage, last_page + 1, :last_page, 'queued', 1, turn, halved, lane, caller, short
FROM shards WHERE id = :shard

-- name: charge_caller
UPDATE callers SET
    turn = max(turn, (SELECT clock FROM lanes WHERE lanes.lane = callers.lane)) + :pages, clock = max(clock, :turn)
WHERE id = :caller
RETURNING turn - :pages AS served_at

-- name: refund_caller
UPDATE callers SET turn = turn - :pages WHERE id = :caller

-- name: advance_lanes
UPDATE lanes SET
    clock = CASE WHEN lane = :lane THEN max(clock, :served_at) ELSE clock END,
    streak = CASE WHEN lane = :lane THEN 0 ELSE streak + 1 END

-- Whoever has nothing under way, and is not ahead of the others either, would begin as a new caller does.
-- name: forget_callers
DELETE FROM callers
WHERE lane = :lane AND turn <= (SELECT clock FROM lanes WHERE lanes.lane = :lane) AND open = 0

-- name: enter_caller
INSERT INTO callers (lane, name, turn)
VALUES (:lane, :caller, (SELECT clock FROM lanes WHERE lanes.lane = :lane) + :pages)
ON CONFLICT (lane, name) DO UPDATE SET turn = max(
    turn, (SELECT clock FROM lanes WHERE lanes.lane = :lane) + CASE WHEN open = 0 THEN :pages ELSE 0 END
)
RETURNING id, clock

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
RETURNING job, turn, caller, last_page - first_page + 1 AS pages

-- name: expect_seconds
UPDATE shards SET seconds = :seconds
WHERE id = :shard AND attempt = :attempt AND owner_pid = :pid AND owner_started = :started AND state = 'running'
    AND stage = 'whole'
RETURNING job, caller, last_page - first_page + 1 AS pages

-- Nothing was done in this attempt: it does not count.
-- name: put_back
UPDATE shards
SET state = 'queued', attempt = attempt - 1, owner_pid = NULL, owner_started = NULL, worker_index = NULL,
    claimed_at = NULL, heartbeat_at = NULL, deadline_at = NULL
WHERE id = :shard

-- name: unstart_job
UPDATE jobs SET state = 'queued', started_at = NULL WHERE number = :job AND state = 'running' AND pages_done = 0

-- The result is made by the reader, whichever worker ends it: it counts as made by whoever cut the document.
-- name: keep_decisions
UPDATE jobs SET decisions = :decisions, reader = :reader, engines = iif(:reader IS NULL, NULL, (
    SELECT nullif(engines, '') FROM workers WHERE pid = :pid AND started = :started
))
WHERE number = :job

-- Another worker, with engines that have not refused the shard, serves. A document that was cut is work done, and may
-- need the one who cut it: for that, one whose process is just being replaced counts as well.
-- name: another_may_read
SELECT 1 FROM shards, workers
WHERE shards.id = :shard AND (
    workers.state IN ('ready', 'busy', 'resting') OR (shards.stage <> 'whole' AND (
        workers.state IN ('starting', 'loading', 'recycling')
        OR (workers.state = 'gone' AND workers.heartbeat_at > :now - :respite)
    ))
)
    AND workers.engines NOT IN (SELECT value FROM json_each(shards.refused))
    AND workers.engines <> coalesce((SELECT own.engines FROM workers AS own WHERE own.slot = shards.worker_index), '')
LIMIT 1

-- name: refuse
UPDATE shards SET refused = json_insert(
    coalesce(refused, '[]'), '$[#]', coalesce((SELECT engines FROM workers WHERE slot = worker_index), '')
)
WHERE id = :shard
RETURNING caller

-- name: start_job
UPDATE jobs SET state = 'running', started_at = :now WHERE number = :job AND state = 'queued'

-- name: claimed_job
SELECT id AS job_id, filename, suffix, size, sha256, pages, options, decisions, reader,
    EXISTS (SELECT 1 FROM poison WHERE poison.sha256 = jobs.sha256 AND poison.until > :now) AS killed_workers
FROM jobs WHERE number = :job

-- name: finished_parts
SELECT output FROM shards WHERE job = :job AND stage = 'pages' AND state = 'done' ORDER BY first_page, id

-- name: pages_given_up
SELECT first_page, error FROM shards
WHERE job = :job AND stage IN ('pages', 'probe') AND state = 'failed' AND first_page BETWEEN :first AND :last
GROUP BY first_page ORDER BY first_page

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
