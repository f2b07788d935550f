-- Workers may differ in what they can read: who goes on with a document that was cut, and who could not take a shard up.
ALTER TABLE jobs ADD COLUMN reader TEXT;                        -- engine/tier of whoever cut it; NULL: not cut
ALTER TABLE shards ADD COLUMN refused TEXT;                     -- fingerprints of workers that cannot read it, JSON

DROP INDEX shards_claimable;
CREATE INDEX shards_claimable
ON shards (caller, turn, job, first_page, last_page, stage, not_before, avoid_slot, seconds, lane, short, refused)
WHERE state = 'queued' AND ready = 1;
