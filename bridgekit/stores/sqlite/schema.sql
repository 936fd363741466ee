-- One application's thread logs, routes and used tickets. Times are in seconds since 1970.

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
  used_at REAL NOT NULL
);

CREATE TABLE events (
  thread INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  first INTEGER NOT NULL,       -- events `first` to `seq - 1` were lost; `seq` if there are none
  at REAL NOT NULL,
  data BLOB NOT NULL,           -- the frame
  PRIMARY KEY (thread, seq)
) WITHOUT ROWID;

CREATE TABLE routes (
  run_id TEXT PRIMARY KEY,
  thread_id TEXT NOT NULL,
  due REAL,                     -- when the route is deleted; NULL for a live run
  closed INTEGER NOT NULL       -- whether the run has ended
) WITHOUT ROWID;
CREATE INDEX routes_due ON routes (due) WHERE due IS NOT NULL;

-- Runs that the process executes.
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY,
  thread_id TEXT NOT NULL,
  agent_name TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE used_tickets (
  ticket_id TEXT PRIMARY KEY,
  until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX used_tickets_until ON used_tickets (until);

-- A transaction is one INSERT into this view; its trigger writes to the tables. With a statement for each row, the
-- writing thread would release and acquire the interpreter's lock for each row, and wait for a busy event loop.
CREATE VIEW inbox AS SELECT
  0 AS now,
  '[]' AS forgotten,            -- numbers of threads
  '[]' AS heads,                -- [number, thread_id, epoch, seq, last]
  '[]' AS events,               -- [thread, seq, first, offset in `data` from 1, bytes]
  x'' AS data,
  '[]' AS deletions,            -- [thread, first seq, last seq]
  '[]' AS routes,               -- [run_id, thread_id, due]
  '[]' AS runs,                 -- [run_id, thread_id, agent_name]; [run_id, null, null] for a run that has ended
  '[]' AS used_tickets;         -- [ticket_id, until]

CREATE TRIGGER write_transaction INSTEAD OF INSERT ON inbox BEGIN
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
    SELECT old.thread, old.seq FROM json_each(NEW.deletions) AS deletion CROSS JOIN events AS old
    WHERE old.thread = json_extract(deletion.value, '$[0]')
      AND old.seq BETWEEN json_extract(deletion.value, '$[1]') AND json_extract(deletion.value, '$[2]')
  );

  INSERT INTO routes
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[2]') IS NOT NULL
  FROM json_each(NEW.routes) WHERE true
  ON CONFLICT (run_id) DO UPDATE SET
    thread_id = excluded.thread_id, due = excluded.due, closed = excluded.closed;
  DELETE FROM routes WHERE run_id IN (SELECT run_id FROM routes WHERE due <= NEW.now ORDER BY due LIMIT 256);

  INSERT INTO runs
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
  FROM json_each(NEW.runs) WHERE json_extract(value, '$[1]') IS NOT NULL;
  DELETE FROM runs WHERE run_id IN (
    SELECT json_extract(value, '$[0]') FROM json_each(NEW.runs) WHERE json_extract(value, '$[1]') IS NULL
  );

  INSERT INTO used_tickets
  SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')
  FROM json_each(NEW.used_tickets) WHERE true
  ON CONFLICT (ticket_id) DO UPDATE SET until = excluded.until;
  DELETE FROM used_tickets WHERE ticket_id IN (
    SELECT ticket_id FROM used_tickets WHERE until <= NEW.now ORDER BY until LIMIT 256
  );
END;

PRAGMA application_id = 1651663975;  -- "brdg"
PRAGMA user_version = 3;

COMMIT;
