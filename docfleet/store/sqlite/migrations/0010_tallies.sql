-- Counts that outlive jobs, workers and the server: what was done on which device, what went wrong, how long it took.
CREATE TABLE shard_tallies (
    device       TEXT    NOT NULL,
    tier         TEXT    NOT NULL,
    stage        TEXT    NOT NULL,
    bucket       INTEGER NOT NULL,              -- place in `docfleet.store.tallies.SHARD_SECONDS`; its length: beyond
    shards       INTEGER NOT NULL,
    pages        INTEGER NOT NULL,              -- read
    pages_failed INTEGER NOT NULL,              -- left out of what was delivered
    seconds      REAL    NOT NULL,
    PRIMARY KEY (device, tier, stage, bucket)
) STRICT, WITHOUT ROWID;

-- Attempts that ended without a result.
CREATE TABLE attempt_tallies (
    device   TEXT    NOT NULL,
    code     TEXT    NOT NULL,                  -- of the error
    attempts INTEGER NOT NULL,
    pages    INTEGER NOT NULL,                  -- given up with them
    PRIMARY KEY (device, code)
) STRICT, WITHOUT ROWID;

-- What else is counted, by name and kind; both are words of the program's own.
CREATE TABLE events (
    name  TEXT    NOT NULL,
    kind  TEXT    NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (name, kind)
) STRICT, WITHOUT ROWID;

-- The measured speed, now of each device.
CREATE TABLE speed (
    second INTEGER NOT NULL,
    device TEXT    NOT NULL,
    pages  INTEGER NOT NULL,
    PRIMARY KEY (second, device)
) STRICT, WITHOUT ROWID;

INSERT INTO speed (second, device, pages) SELECT second, '', pages FROM throughput;
DROP TABLE throughput;
ALTER TABLE speed RENAME TO throughput;
