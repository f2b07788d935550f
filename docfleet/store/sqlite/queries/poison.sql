-- Documents that killed workers. A row that has expired counts as if it were not there.

-- name: poison_of_job
SELECT poison.*, jobs.options FROM jobs JOIN poison ON poison.sha256 = jobs.sha256
WHERE jobs.number = :job AND poison.until > :now

-- name: read_as
SELECT sha256, filename, options FROM jobs WHERE number = :job

-- name: forget_expired_poison
DELETE FROM poison WHERE until <= :now

-- name: remember_death
INSERT INTO poison (sha256, way, filename, deaths, error, since, until)
VALUES (:sha256, :way, :filename, 1, :error, :now, :until)
ON CONFLICT (sha256, way) DO UPDATE SET
    filename = excluded.filename, deaths = deaths + 1, error = excluded.error, until = excluded.until
RETURNING deaths

-- name: remember_page
INSERT INTO poison_pages (sha256, way, page, error) VALUES (:sha256, :way, :page, :error)
ON CONFLICT (sha256, way, page) DO UPDATE SET error = excluded.error

-- name: poisoned_pages
SELECT page, error FROM poison_pages WHERE sha256 = :sha256 AND way = :way ORDER BY page

-- name: be_careful
UPDATE jobs SET careful = 1 WHERE number = :job

-- A page that is left out from the beginning stands there as one that was tried in vain.
-- name: leave_out
INSERT INTO shards (job, stage, first_page, last_page, state, ready, turn, halved, finished_at, error, lane)
SELECT :job, 'probe', :page, :page, 'failed', 1, 0, 1, :now, :error, lane FROM jobs
WHERE number = :job AND EXISTS (
    SELECT 1 FROM shards WHERE job = :job AND stage IN ('whole', 'document') AND :page BETWEEN first_page AND last_page
)

-- Those that are identical, and under way.
-- name: same_document
SELECT number, lane, caller FROM jobs
WHERE finished_at IS NULL AND state IN ('queued', 'running') AND sha256 = :sha256

-- Whatever waits now goes first: the turn is the one that the last of it will have.
-- name: enter_last_caller
INSERT INTO callers (lane, name, turn)
SELECT lane, :caller, max(clock, coalesce((
    SELECT max(due) FROM (
        SELECT callers.turn + sum(shards.last_page - shards.first_page + 1) AS due
        FROM callers JOIN shards ON shards.caller = callers.id
        WHERE callers.lane = :lane AND shards.state = 'queued' AND shards.ready = 1
            AND shards.job NOT IN (SELECT value FROM json_each(:jobs))
        GROUP BY callers.id
    )
), 0)) FROM lanes WHERE lane = :lane
ON CONFLICT (lane, name) DO UPDATE SET turn = max(turn, excluded.turn)
RETURNING id

-- name: leave_caller
UPDATE callers SET open = open - 1 WHERE id = (SELECT caller FROM jobs WHERE number = :job)

-- name: come_to_caller
UPDATE callers SET open = open + 1 WHERE id = :caller

-- name: move_job
UPDATE jobs SET caller = :caller WHERE number = :job

-- What is being read goes along: its halves, or its rest, would be left to a caller who may be forgotten.
-- name: move_shards
UPDATE shards SET caller = :caller WHERE job = :job AND state IN ('queued', 'running')

-- Read to its end, all of it.
-- name: acquitted
SELECT poison.sha256, poison.way, jobs.options FROM jobs JOIN poison ON poison.sha256 = jobs.sha256
WHERE jobs.number = :job AND jobs.wanted >= jobs.pages

-- name: acquit
DELETE FROM poison WHERE sha256 = :sha256 AND way = :way

-- name: poison
SELECT * FROM poison WHERE until > :now ORDER BY until DESC LIMIT :limit

-- name: forget_poison
DELETE FROM poison WHERE sha256 = :sha256 OR :sha256 IS NULL
