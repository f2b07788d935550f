-- The newest report of every worker slot.
CREATE TABLE workers (
    slot           INTEGER PRIMARY KEY,
    pid            INTEGER NOT NULL,
    started        INTEGER NOT NULL,
    device         TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    detail         TEXT    NOT NULL,
    heartbeat_at   REAL    NOT NULL,
    started_at     REAL    NOT NULL,
    shard_id       INTEGER,
    documents_done INTEGER NOT NULL,
    pages_done     INTEGER NOT NULL,
    rss            INTEGER NOT NULL
) STRICT;
