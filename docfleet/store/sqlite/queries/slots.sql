-- Which process serves which slot of the plan; spare processes have slots beyond it.

-- A slot belongs to the process that took it, until that process is seen to be gone.
-- name: announce
INSERT INTO workers (
    slot, pid, started, device, state, detail, heartbeat_at, started_at, shard_id, documents_done, pages_done, rss,
    engines, retry_at
) VALUES (
    :slot, :pid, :started, :device, :state, :detail, :heartbeat_at, :started_at, :shard_id, :documents_done,
    :pages_done, :rss, :engines, :retry_at
)
ON CONFLICT (slot) DO UPDATE SET
    pid = excluded.pid, started = excluded.started, device = excluded.device, state = excluded.state,
    detail = excluded.detail, heartbeat_at = excluded.heartbeat_at, started_at = excluded.started_at,
    shard_id = excluded.shard_id, documents_done = excluded.documents_done, pages_done = excluded.pages_done,
    rss = excluded.rss, engines = excluded.engines, retry_at = excluded.retry_at, ended = 0,
    crashes = CASE WHEN excluded.state IN ('ready', 'busy', 'spare') THEN 0 ELSE crashes END,
    exit_status = CASE WHEN excluded.state IN ('ready', 'busy', 'spare') THEN NULL ELSE exit_status END
WHERE workers.ended OR (workers.pid = excluded.pid AND workers.started = excluded.started)
RETURNING slot

-- name: held_slot
SELECT * FROM workers WHERE slot = :slot AND pid = :pid AND started = :started AND NOT ended

-- name: free_slot
DELETE FROM workers WHERE slot = :slot AND pid = :pid AND started = :started

-- name: seat
UPDATE workers SET
    pid = :pid, started = :started, state = :state, detail = :detail, heartbeat_at = :heartbeat_at,
    started_at = :started_at, shard_id = NULL, documents_done = :documents_done, pages_done = :pages_done, rss = :rss,
    engines = :engines
WHERE slot = :slot

-- name: retire
UPDATE workers SET
    state = :state, detail = :detail, shard_id = NULL, ended = 1, crashes = :crashes, retry_at = :retry_at
WHERE slot = :slot AND pid = :pid AND started = :started AND NOT ended

-- name: record_exit
UPDATE workers SET exit_status = :status WHERE pid = :pid

-- name: forgive
UPDATE workers SET
    crashes = 0, retry_at = 0, exit_status = NULL, state = CASE WHEN ended THEN 'gone' ELSE state END
