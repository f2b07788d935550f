-- The supervisor's side.

-- name: leases
SELECT shards.*, jobs.id AS job_id, jobs.sha256 FROM shards JOIN jobs ON jobs.number = shards.job
WHERE shards.state = 'running' ORDER BY shards.id

-- name: prove_writable
INSERT INTO knobs (name, value) VALUES ('written_at', :moment) ON CONFLICT (name) DO UPDATE SET value = :moment

-- name: finished_before
SELECT id FROM jobs WHERE finished_at < :moment ORDER BY finished_at, number LIMIT :limit

-- name: known
SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(:ids))
