-- This number belongs to a step of another change.
SELECT 1;
