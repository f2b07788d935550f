-- A slot's process may be followed by a warm one, and one that dies before it is ready is started again later each time.
ALTER TABLE workers ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;    -- 1: the process is gone, the slot is free
ALTER TABLE workers ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;  -- processes in a row that died before they were ready
ALTER TABLE workers ADD COLUMN retry_at REAL NOT NULL DEFAULT 0;    -- no process loads in this slot before
ALTER TABLE workers ADD COLUMN exit_status INTEGER;                 -- of the last process; negative: killed by that signal

UPDATE workers SET ended = 1 WHERE state = 'gone';
