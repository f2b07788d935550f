-- How work is stopped. Taking a shard's state away ends its lease; `revoked` remembers who may still be at it.

-- name: revoke
INSERT INTO revoked (shard, job_id, owner_pid, owner_started, slot, since)
SELECT shards.id, jobs.id, owner_pid, owner_started, coalesce(worker_index, 0), :now
FROM shards JOIN jobs ON jobs.number = shards.job
WHERE jobs.id = :id AND shards.state = 'running' AND owner_pid IS NOT NULL

-- A job whose result others wait for is not only its caller's. Of one that is stopped by name nothing is kept, not even
-- finished pages (`shared_documents`); the caller who only left may come back for them.
-- name: cancel_job
UPDATE jobs SET state = 'cancelled', finished_at = :now, error = :error,
    reuse_key = CASE WHEN :even_kept THEN NULL ELSE reuse_key END
WHERE id = :id AND state IN ('queued', 'running') AND (
    :even_kept OR kept <= 0 AND NOT EXISTS (
        SELECT 1 FROM jobs AS follower
        WHERE follower.follows = jobs.number AND follower.finished_at IS NULL AND follower.kept >= 0
    )
)
RETURNING number

-- It goes on for others only; those who follow it and were left, too, do not count among them.
-- name: caller_left
UPDATE jobs SET kept = -1 WHERE id = :id AND kept = 0 AND finished_at IS NULL

-- name: unwanted
SELECT id FROM jobs WHERE finished_at IS NULL AND kept < 0 AND NOT EXISTS (
    SELECT 1 FROM jobs AS follower
    WHERE follower.follows = jobs.number AND follower.finished_at IS NULL AND follower.kept >= 0
)

-- name: forget_keys_of_job
DELETE FROM request_keys WHERE job = :job

-- name: let_go
UPDATE revoked SET let_go = 1 WHERE owner_pid = :pid AND owner_started = :started AND let_go = 0

-- name: revoked
SELECT * FROM revoked ORDER BY since

-- name: forget_revoked
DELETE FROM revoked WHERE shard = :shard
