-- Lanes: who goes first. Each has a clock of its own: the turn of the shard that was claimed from it last. Turns are
-- counted in pages from there (`docfleet.sharding.cutting.turns`).
CREATE TABLE lanes (
    lane   TEXT    PRIMARY KEY,
    clock  INTEGER NOT NULL,
    streak INTEGER NOT NULL                     -- claims from another lane since the last from this one
) STRICT, WITHOUT ROWID;

INSERT INTO lanes (lane, clock, streak) VALUES ('interactive', 0, 0), ('batch', 0, 0);

-- One row: the work that is accepted and not done. Kept by the triggers below, whoever changes a job.
CREATE TABLE backlog (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    jobs   INTEGER NOT NULL,
    pages  INTEGER NOT NULL
) STRICT;

ALTER TABLE jobs ADD COLUMN lane TEXT NOT NULL DEFAULT 'interactive';
ALTER TABLE jobs ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;  -- pages asked for
ALTER TABLE jobs ADD COLUMN kept INTEGER NOT NULL DEFAULT 1;    -- 0: cancelled when its only caller leaves
ALTER TABLE shards ADD COLUMN lane TEXT NOT NULL DEFAULT 'interactive';

UPDATE jobs SET wanted = coalesce(
    (SELECT sum(last_page - first_page + 1) FROM shards WHERE job = jobs.number AND stage IN ('pages', 'whole')), pages
);

INSERT INTO backlog (one, jobs, pages)
SELECT 1, count(*), coalesce(sum(max(wanted - pages_done, 0)), 0) FROM jobs WHERE finished_at IS NULL;

DROP INDEX shards_claimable;
CREATE INDEX shards_claimable ON shards (lane, turn, job, first_page, last_page, stage, not_before, avoid_slot)
WHERE state = 'queued' AND ready = 1;
CREATE INDEX shards_whole_held ON shards (first_page, last_page) WHERE state = 'running' AND stage = 'whole';

CREATE TRIGGER backlog_grows AFTER INSERT ON jobs WHEN NEW.finished_at IS NULL
BEGIN
    UPDATE backlog SET jobs = jobs + 1, pages = pages + max(NEW.wanted - NEW.pages_done, 0);
END;

CREATE TRIGGER backlog_is_worked_off AFTER UPDATE OF pages_done, finished_at ON jobs
WHEN OLD.pages_done <> NEW.pages_done OR (OLD.finished_at IS NULL) <> (NEW.finished_at IS NULL)
BEGIN
    UPDATE backlog SET
        jobs = jobs + (NEW.finished_at IS NULL) - (OLD.finished_at IS NULL),
        pages = pages + (NEW.finished_at IS NULL) * max(NEW.wanted - NEW.pages_done, 0)
                      - (OLD.finished_at IS NULL) * max(OLD.wanted - OLD.pages_done, 0);
END;

CREATE TRIGGER backlog_shrinks AFTER DELETE ON jobs WHEN OLD.finished_at IS NULL
BEGIN
    UPDATE backlog SET jobs = jobs - 1, pages = pages - max(OLD.wanted - OLD.pages_done, 0);
END;

-- What a caller's Idempotency-Key stands for.
CREATE TABLE request_keys (
    key         TEXT    PRIMARY KEY,
    job         INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    fingerprint TEXT    NOT NULL,
    expires_at  REAL    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX request_keys_of_job ON request_keys (job);
CREATE INDEX request_keys_expire ON request_keys (expires_at);

-- Leases that were taken from a living worker. A row goes when the worker has let go, or was killed.
CREATE TABLE revoked (
    shard         INTEGER PRIMARY KEY,
    job_id        TEXT    NOT NULL,
    owner_pid     INTEGER NOT NULL,
    owner_started INTEGER NOT NULL,
    slot          INTEGER NOT NULL,
    since         REAL    NOT NULL,
    let_go        INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO counters (name, value) VALUES ('cancelled', 0), ('refused', 0);
