-- A slot's process may be followed by a warm one, and one that dies before it is ready is started again later each time.
ALTER TABLE workers ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;    -- 1: the process is gone, the slot is free
ALTER TABLE workers ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;  -- processes in a row that died before they were ready
ALTER TABLE workers ADD COLUMN retry_at REAL NOT NULL DEFAULT 0;    -- no process loads in this slot before
ALTER TABLE workers ADD COLUMN exit_status INTEGER;                 -- of the last process; negative: killed by that signal

UPDATE workers SET ended = 1 WHERE state = 'gone';

-- Documents whose attempts ended with a dead worker, by content and by the options that decide how they are read.
CREATE TABLE poison (
    sha256   TEXT    NOT NULL,
    way      TEXT    NOT NULL,                  -- options, JSON
    filename TEXT    NOT NULL,
    deaths   INTEGER NOT NULL,
    error    TEXT    NOT NULL,                  -- of the last death, JSON
    since    REAL    NOT NULL,
    until    REAL    NOT NULL,
    PRIMARY KEY (sha256, way)
) STRICT, WITHOUT ROWID;

CREATE INDEX poison_expires ON poison (until);

-- Pages that were given up for it.
CREATE TABLE poison_pages (
    sha256 TEXT    NOT NULL,
    way    TEXT    NOT NULL,
    page   INTEGER NOT NULL,
    error  TEXT    NOT NULL,
    PRIMARY KEY (sha256, way, page),
    FOREIGN KEY (sha256, way) REFERENCES poison (sha256, way) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- 1: every piece gets one attempt, for the document has killed workers before.
ALTER TABLE jobs ADD COLUMN careful INTEGER NOT NULL DEFAULT 0;
