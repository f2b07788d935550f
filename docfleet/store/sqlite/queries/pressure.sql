-- How much is done at once: workers that rest while memory is short, and the cap on shards that are held.

-- name: resting
SELECT reason FROM resting WHERE slot = :slot AND until > :now

-- name: end_all_rests
DELETE FROM resting

-- name: rest
INSERT INTO resting (slot, reason, until) VALUES (:slot, :reason, :until)

-- name: max_concurrent
SELECT value FROM knobs WHERE name = 'max_concurrent'

-- name: set_max_concurrent
INSERT INTO knobs (name, value) VALUES ('max_concurrent', :value) ON CONFLICT (name) DO UPDATE SET value = :value

-- name: lift_max_concurrent
DELETE FROM knobs WHERE name = 'max_concurrent'

-- name: at_most_held
SELECT 1 FROM knobs
WHERE name = 'max_concurrent' AND value <= (SELECT count(*) FROM shards WHERE state = 'running')
