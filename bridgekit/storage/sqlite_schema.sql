-- One application's routes, logs and spent tickets. Times are seconds since 1970.

BEGIN IMMEDIATE;

-- One row: who has the file open.
CREATE TABLE store (
  boot TEXT,                    -- the boot of the machine, and what follows; NULL while nobody has it open
  synchronous TEXT NOT NULL     -- what survives a power loss: see Synchronous
);
INSERT INTO store VALUES (NULL, 'full');

-- A thread's numbering, for as long as it is remembered. While its log holds a later event, that has the say: a row
-- less to write for each.
CREATE TABLE threads (
  number INTEGER PRIMARY KEY,   -- stands for the thread in `events`
  thread_id TEXT NOT NULL UNIQUE,
  epoch TEXT NOT NULL,
  seq INTEGER NOT NULL,         -- every number up to here was given
  last INTEGER NOT NULL,        -- the last whose event was ever in the file; those after it were lost
  used_at REAL NOT NULL
);

CREATE TABLE events (
  thread INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  first INTEGER NOT NULL,       -- `seq`; or lower where the events of the numbers before it were lost
  at REAL NOT NULL,
  data BLOB NOT NULL,           -- the frame
  PRIMARY KEY (thread, seq)
) WITHOUT ROWID;

CREATE TABLE routes (
  run_id TEXT PRIMARY KEY,
  thread_id TEXT NOT NULL,
  due REAL,                     -- when it is to be forgotten; NULL for a live run
  closed INTEGER NOT NULL       -- whether the run was said to have ended
) WITHOUT ROWID;
CREATE INDEX routes_due ON routes (due) WHERE due IS NOT NULL;

CREATE TABLE spent (
  ticket_id TEXT PRIMARY KEY,
  until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX spent_until ON spent (until);

-- A group is one row for this view, and its trigger puts everything where it belongs: one statement, which is
-- atomic by itself. A statement a row would hand the interpreter's lock back and forth as often; where the event
-- loop is busy, each time may be a long one.
CREATE VIEW inbox AS SELECT
  0 AS now,
  '[]' AS forgotten,            -- numbers of threads
  '[]' AS heads,                -- [number, thread_id, epoch, seq, last]
  '[]' AS events,               -- [thread, seq, first, where in `data` from 1, how many bytes]
  x'' AS data,
  '[]' AS trims,                -- [thread, first, last]: events that are kept no longer
  '[]' AS routes,               -- [run_id, thread_id, due]
  '[]' AS spent;                -- [ticket_id, until]

CREATE TRIGGER put_away INSTEAD OF INSERT ON inbox BEGIN
  DELETE FROM threads WHERE number IN (SELECT value FROM json_each(NEW.forgotten));

  INSERT INTO threads
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), json_extract(value, '$[4]'), NEW.now
  FROM json_each(NEW.heads) WHERE true
  ON CONFLICT (number) DO UPDATE SET seq = excluded.seq, last = excluded.last, used_at = excluded.used_at;

  INSERT INTO events
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), NEW.now,
    substr(NEW.data, json_extract(value, '$[3]'), json_extract(value, '$[4]'))
  FROM json_each(NEW.events);

  DELETE FROM events WHERE (thread, seq) IN (
    SELECT old.thread, old.seq FROM json_each(NEW.trims) AS trim CROSS JOIN events AS old
    WHERE old.thread = json_extract(trim.value, '$[0]')
      AND old.seq BETWEEN json_extract(trim.value, '$[1]') AND json_extract(trim.value, '$[2]')
  );

  INSERT INTO routes
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[2]') IS NOT NULL
  FROM json_each(NEW.routes) WHERE true
  ON CONFLICT (run_id) DO UPDATE SET
    thread_id = excluded.thread_id, due = excluded.due, closed = excluded.closed;
  DELETE FROM routes WHERE run_id IN (SELECT run_id FROM routes WHERE due <= NEW.now ORDER BY due LIMIT 256);

  INSERT INTO spent
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')
  FROM json_each(NEW.spent) WHERE true
  ON CONFLICT (ticket_id) DO UPDATE SET until = excluded.until;
  DELETE FROM spent WHERE ticket_id IN (SELECT ticket_id FROM spent WHERE until <= NEW.now ORDER BY until LIMIT 256);
END;

PRAGMA application_id = 1651663975;  -- "brdg"
PRAGMA user_version = 1;

COMMIT;
