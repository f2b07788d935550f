-- Callers: nobody gets more by sending more. A caller is a row while it has work under way, in each lane by itself, and
-- its name (an address, say) rests here and nowhere else: it goes with the row. Turns are counted in pages on the lane's
-- clock (`docfleet.sharding.fairness`); inside a caller its documents take turns on a clock of the caller's own.
CREATE TABLE callers (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,    -- never given out again: ended jobs still name it
    lane  TEXT    NOT NULL,
    name  TEXT    NOT NULL,
    turn  INTEGER NOT NULL,                     -- when the caller's next piece is taken, on the lane's clock
    clock INTEGER NOT NULL DEFAULT 0,           -- turn of its shard that was claimed last
    open  INTEGER NOT NULL DEFAULT 0,           -- its jobs that are not ended
    UNIQUE (lane, name)
) STRICT;

CREATE INDEX callers_in_turn ON callers (lane, turn, id, open);
CREATE INDEX callers_open ON callers (id) WHERE open > 0;

ALTER TABLE jobs ADD COLUMN caller INTEGER;
ALTER TABLE shards ADD COLUMN caller INTEGER NOT NULL DEFAULT 0;
-- Expected seconds of a piece that cannot be cut; 0 where that is not known, or where it can be.
ALTER TABLE shards ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
-- Whether its document is short: long ones give way to it between two of their pages.
ALTER TABLE shards ADD COLUMN short INTEGER NOT NULL DEFAULT 0;

-- Who sent what is under way was not kept: one caller without a name has sent it all.
INSERT INTO callers (lane, name, turn, clock, open)
SELECT lanes.lane, '', lanes.clock, lanes.clock, count(*)
FROM lanes JOIN jobs ON jobs.lane = lanes.lane AND jobs.finished_at IS NULL GROUP BY lanes.lane;

UPDATE jobs SET caller = (SELECT id FROM callers WHERE callers.lane = jobs.lane) WHERE finished_at IS NULL;
UPDATE shards SET caller = coalesce((SELECT jobs.caller FROM jobs WHERE jobs.number = shards.job), 0)
WHERE state IN ('queued', 'running');

DROP INDEX shards_claimable;
CREATE INDEX shards_claimable
ON shards (caller, turn, job, first_page, last_page, stage, not_before, avoid_slot, seconds, lane, short)
WHERE state = 'queued' AND ready = 1;
CREATE INDEX shards_short ON shards (caller, turn, job) WHERE state = 'queued' AND ready = 1 AND short = 1;
DROP INDEX shards_whole_held;
CREATE INDEX shards_long_held ON shards (seconds) WHERE state = 'running' AND seconds > 0;

CREATE TRIGGER caller_asks AFTER INSERT ON jobs WHEN NEW.finished_at IS NULL
BEGIN
    UPDATE callers SET open = open + 1 WHERE id = NEW.caller;
END;

-- When nobody has work under way, all are forgotten: everybody begins alike at the lane's clock.
CREATE TRIGGER caller_is_served AFTER UPDATE OF finished_at ON jobs
WHEN OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL
BEGIN
    UPDATE callers SET open = open - 1 WHERE id = NEW.caller;
    DELETE FROM callers WHERE open = 0 AND NOT EXISTS (SELECT 1 FROM callers WHERE open > 0);
END;

CREATE TRIGGER caller_takes_back AFTER DELETE ON jobs WHEN OLD.finished_at IS NULL
BEGIN
    UPDATE callers SET open = open - 1 WHERE id = OLD.caller;
    DELETE FROM callers WHERE open = 0 AND NOT EXISTS (SELECT 1 FROM callers WHERE open > 0);
END;
