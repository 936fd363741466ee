-- One application's thread logs, routes and active runs. Times are in seconds since 1970. A `sum` is a checksum of the
-- row's other values, without its times. The checks of types are repeated when the file is opened.

BEGIN IMMEDIATE;

-- One row: the process that has the file open.
CREATE TABLE store (
  boot TEXT,                    -- the id of the machine's boot, or '' if unknown; NULL when the file was closed
  synchronous TEXT NOT NULL     -- the setting with which it was opened: see Synchronous
);
INSERT INTO store VALUES (NULL, 'full');

-- A thread's position, until the thread is forgotten.
CREATE TABLE threads (
  number INTEGER PRIMARY KEY,   -- identifies the thread in `events`
  thread_id TEXT NOT NULL UNIQUE,
  epoch TEXT NOT NULL,
  seq INTEGER NOT NULL,         -- the last number that was assigned
  last INTEGER NOT NULL,        -- the last event that was stored; the events after it were lost
  used_at REAL NOT NULL CHECK (typeof(used_at) = 'real'),
  sum INTEGER NOT NULL
);

CREATE TABLE events (
  thread INTEGER NOT NULL CHECK (typeof(thread) = 'integer'),
  seq INTEGER NOT NULL CHECK (typeof(seq) = 'integer'),
  first INTEGER NOT NULL CHECK (typeof(first) = 'integer'), -- events `first` to `seq - 1` were lost; `seq` if there are none
  at REAL NOT NULL CHECK (typeof(at) = 'real'),
  data BLOB NOT NULL,           -- the frame
  sum INTEGER NOT NULL,
  PRIMARY KEY (thread, seq)
) WITHOUT ROWID;

CREATE TABLE routes (
  run_id TEXT PRIMARY KEY,
  thread_id TEXT NOT NULL,
  due REAL CHECK (typeof(due) IN ('real', 'null')), -- when the route is deleted; NULL for a live run
  closed INTEGER NOT NULL,      -- whether the run has ended
  sum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX routes_due ON routes (due) WHERE due IS NOT NULL;

-- Runs that the process executes.
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY,
  thread_id TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  sum INTEGER NOT NULL
) WITHOUT ROWID;

-- A transaction is one INSERT into this view; its trigger writes to the tables. With a statement for each row, the
-- writing thread would release and acquire the interpreter's lock for each row, and wait for a busy event loop.
CREATE VIEW inbox AS SELECT
  0 AS now,
  '[]' AS forgotten,            -- numbers of threads
  '[]' AS heads,                -- [number, thread_id, epoch, seq, last, sum]
  '[]' AS events,               -- [thread, seq, first, offset in `data` from 1, bytes, sum]
  x'' AS data,
  '[]' AS deletions,            -- [thread, first seq, last seq]
  '[]' AS routes,               -- [run_id, thread_id, due, sum]
  '[]' AS runs;                 -- [run_id, thread_id, agent_name, sum]; [run_id, null, null, 0] for a run that has ended

CREATE TRIGGER write_transaction INSTEAD OF INSERT ON inbox BEGIN
  DELETE FROM threads WHERE number IN (SELECT value FROM json_each(NEW.forgotten));

  INSERT INTO threads
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), json_extract(value, '$[4]'), NEW.now, json_extract(value, '$[5]')
  FROM json_each(NEW.heads) WHERE true
  ON CONFLICT (number) DO UPDATE SET
    seq = excluded.seq, last = excluded.last, used_at = excluded.used_at, sum = excluded.sum;

  INSERT INTO events
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), NEW.now,
    substr(NEW.data, json_extract(value, '$[3]'), json_extract(value, '$[4]')), json_extract(value, '$[5]')
  FROM json_each(NEW.events);

  DELETE FROM events WHERE (thread, seq) IN (
    SELECT old.thread, old.seq FROM json_each(NEW.deletions) AS deletion CROSS JOIN events AS old
    WHERE old.thread = json_extract(deletion.value, '$[0]')
      AND old.seq BETWEEN json_extract(deletion.value, '$[1]') AND json_extract(deletion.value, '$[2]')
  );

  INSERT INTO routes
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[2]') IS NOT NULL, json_extract(value, '$[3]')
  FROM json_each(NEW.routes) WHERE true
  ON CONFLICT (run_id) DO UPDATE SET
    thread_id = excluded.thread_id, due = excluded.due, closed = excluded.closed, sum = excluded.sum;
  DELETE FROM routes WHERE run_id IN (SELECT run_id FROM routes WHERE due <= NEW.now ORDER BY due LIMIT 256);

  INSERT OR REPLACE INTO runs
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]')
  FROM json_each(NEW.runs) WHERE json_extract(value, '$[1]') IS NOT NULL;
  DELETE FROM runs WHERE run_id IN (
    SELECT json_extract(value, '$[0]') FROM json_each(NEW.runs) WHERE json_extract(value, '$[1]') IS NULL
  );
END;

PRAGMA application_id = 1651663975;  -- "brdg"
PRAGMA user_version = 4;

COMMIT;
