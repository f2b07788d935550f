-- Results are reused: who may serve whom, who waits for whom, what a result weighs.
ALTER TABLE jobs ADD COLUMN reuse_key TEXT;                    -- same document, same options; NULL: never reused
ALTER TABLE jobs ADD COLUMN engines TEXT;                      -- fingerprint of the worker that made the result
ALTER TABLE jobs ADD COLUMN follows INTEGER;                   -- number of the job whose result it waits for
ALTER TABLE jobs ADD COLUMN cached INTEGER NOT NULL DEFAULT 0; -- 1: another job's parse made the result
ALTER TABLE jobs ADD COLUMN made_by INTEGER;                   -- number of that job; its files are this one's by link
ALTER TABLE jobs ADD COLUMN bytes INTEGER;                     -- measured size of its folder; NULL: not measured yet

CREATE INDEX jobs_reusable ON jobs (reuse_key) WHERE reuse_key IS NOT NULL;
CREATE INDEX jobs_by_content ON jobs (sha256) WHERE reuse_key IS NOT NULL;
CREATE INDEX jobs_following ON jobs (follows, number) WHERE follows IS NOT NULL;
CREATE INDEX jobs_unmeasured ON jobs (number) WHERE bytes IS NULL AND finished_at IS NOT NULL;

ALTER TABLE workers ADD COLUMN engines TEXT NOT NULL DEFAULT '';

INSERT INTO counters (name, value) VALUES ('cached', 0), ('recycled', 0);

-- The one worker that may leave to be replaced; the row stays until the next one asks.
CREATE TABLE recycling (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    slot    INTEGER NOT NULL,
    pid     INTEGER NOT NULL,
    started INTEGER NOT NULL,
    since   REAL    NOT NULL
) STRICT;

-- The worker that ended the job says what made the result. It is alive: it is in the middle of saying so.
CREATE TRIGGER job_made AFTER UPDATE OF state ON jobs
WHEN NEW.state = 'completed' AND NEW.reuse_key IS NOT NULL AND NEW.engines IS NULL
BEGIN
    UPDATE jobs SET engines = (
        SELECT nullif(workers.engines, '') FROM shards
        JOIN workers ON workers.pid = shards.owner_pid AND workers.started = shards.owner_started
        WHERE shards.job = NEW.number AND shards.state = 'done'
        ORDER BY shards.stage = 'pages', shards.id DESC LIMIT 1
    ) WHERE number = NEW.number;
END;

-- A leader that ends without a result, is removed or whose files are gone leaves its place to its oldest follower.
-- Triggers, so that whatever ends a job, nobody is left waiting for it.
CREATE TRIGGER leader_ended AFTER UPDATE OF state ON jobs
WHEN NEW.state NOT IN ('queued', 'running', 'completed', 'partial')
    AND EXISTS (SELECT 1 FROM jobs WHERE follows = NEW.number)
BEGIN
    UPDATE shards SET ready = 1 WHERE stage <> 'document' AND job = (
        SELECT min(number) FROM jobs WHERE follows = NEW.number AND finished_at IS NULL
    );
    UPDATE jobs SET follows = nullif(
        (SELECT min(number) FROM jobs WHERE follows = NEW.number AND finished_at IS NULL), number
    ) WHERE follows = NEW.number;
END;

CREATE TRIGGER leader_removed BEFORE DELETE ON jobs
WHEN EXISTS (SELECT 1 FROM jobs WHERE follows = OLD.number)
BEGIN
    UPDATE shards SET ready = 1 WHERE stage <> 'document' AND job = (
        SELECT min(number) FROM jobs WHERE follows = OLD.number AND finished_at IS NULL
    );
    UPDATE jobs SET follows = nullif(
        (SELECT min(number) FROM jobs WHERE follows = OLD.number AND finished_at IS NULL), number
    ) WHERE follows = OLD.number;
END;

CREATE TRIGGER leader_forgotten AFTER UPDATE OF reuse_key ON jobs
WHEN NEW.reuse_key IS NULL AND EXISTS (SELECT 1 FROM jobs WHERE follows = NEW.number)
BEGIN
    UPDATE shards SET ready = 1 WHERE stage <> 'document' AND job = (
        SELECT min(number) FROM jobs WHERE follows = NEW.number AND finished_at IS NULL
    );
    UPDATE jobs SET follows = nullif(
        (SELECT min(number) FROM jobs WHERE follows = NEW.number AND finished_at IS NULL), number
    ) WHERE follows = NEW.number;
END;
