-- Counts that outlive the jobs they count.
CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value)
SELECT 'completed', count(*) FROM jobs WHERE state = 'completed'
UNION ALL SELECT 'partial', count(*) FROM jobs WHERE state = 'partial'
UNION ALL SELECT 'failed', count(*) FROM jobs WHERE state = 'failed'
UNION ALL SELECT 'retries', 0
UNION ALL SELECT 'pages', coalesce(sum(pages_done - coalesce(json_array_length(report, '$.failed_pages'), 0)), 0)
          FROM jobs WHERE state IN ('completed', 'partial');

-- Pages recognised in each second of the last minutes: the measured speed.
CREATE TABLE throughput (
    second INTEGER PRIMARY KEY,
    pages  INTEGER NOT NULL
) STRICT;
