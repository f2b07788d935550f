-- Shards that are cut while work goes on: when each one's turn comes, retries that wait, deadlines, halves.
ALTER TABLE shards ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;      -- claimed in this order
ALTER TABLE shards ADD COLUMN not_before REAL NOT NULL DEFAULT 0;   -- a failed attempt waits until then
ALTER TABLE shards ADD COLUMN avoid_slot INTEGER;                   -- where the last attempt failed
ALTER TABLE shards ADD COLUMN deadline_at REAL;                     -- of the lease at hand
ALTER TABLE shards ADD COLUMN halved INTEGER NOT NULL DEFAULT 0;    -- half of a failed one; of a whole: was probed

-- What the engine decided when the document was cut, JSON.
ALTER TABLE jobs ADD COLUMN decisions TEXT;
