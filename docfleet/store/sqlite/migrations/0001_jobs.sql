-- A job is one document; its number is the order of arrival. Numbers are never given out again.
CREATE TABLE jobs (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,
    state       TEXT    NOT NULL,
    filename    TEXT    NOT NULL,
    suffix      TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    sha256      TEXT    NOT NULL,
    pages       INTEGER NOT NULL,
    options     TEXT    NOT NULL,               -- ParseOptions, JSON
    created_at  REAL    NOT NULL,
    started_at  REAL,
    finished_at REAL,
    pages_done  INTEGER NOT NULL DEFAULT 0,
    output      TEXT,
    report      TEXT,                           -- ParseReport, JSON
    error       TEXT                            -- DocfleetError.record(), JSON
) STRICT;

CREATE INDEX jobs_open ON jobs (state) WHERE finished_at IS NULL;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- Shard ids become part of folder names and leases: AUTOINCREMENT, so that a removed shard's id never means another.
CREATE TABLE shards (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    job           INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    stage         TEXT    NOT NULL,
    first_page    INTEGER NOT NULL,
    last_page     INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    ready         INTEGER NOT NULL,             -- 0 while a document stage waits for its page stage
    attempt       INTEGER NOT NULL DEFAULT 0,
    pages_done    INTEGER NOT NULL DEFAULT 0,
    owner_pid     INTEGER,
    owner_started INTEGER,
    worker_index  INTEGER,
    claimed_at    REAL,
    heartbeat_at  REAL,
    finished_at   REAL,
    output        TEXT,
    report        TEXT,                         -- of this shard alone, JSON
    error         TEXT                          -- how the last attempt ended, JSON
) STRICT;

CREATE INDEX shards_of_job ON shards (job, stage, first_page);
-- The queue itself: it holds claimable shards only, in the order in which they are claimed.
CREATE INDEX shards_claimable ON shards (job, first_page, last_page, stage) WHERE state = 'queued' AND ready = 1;
CREATE INDEX shards_held ON shards (id) WHERE state = 'running';
