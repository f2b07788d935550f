-- Workers that take no new work because memory is short. Whoever watches it renews a row; without that it ends.
CREATE TABLE resting (
    slot   INTEGER PRIMARY KEY,
    reason TEXT    NOT NULL,
    until  REAL    NOT NULL
) STRICT;

-- Numbers that can be changed while the server runs, and hold over its end.
CREATE TABLE knobs (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
