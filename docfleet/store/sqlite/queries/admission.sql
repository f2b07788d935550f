-- How much work is accepted and not done, and under which keys callers sent it.

-- name: backlog
SELECT jobs, pages FROM backlog

-- name: keyed
SELECT 1 FROM request_keys WHERE key = :key AND expires_at > :now

-- name: job_of_key
SELECT jobs.*, request_keys.fingerprint FROM request_keys JOIN jobs ON jobs.number = request_keys.job
WHERE key = :key

-- name: insert_key
INSERT INTO request_keys (key, job, fingerprint, expires_at) VALUES (:key, :job, :fingerprint, :expires_at)

-- name: forget_keys
DELETE FROM request_keys WHERE expires_at <= :now

-- name: keep_job
UPDATE jobs SET kept = 1 WHERE id = :id AND kept <> 1
