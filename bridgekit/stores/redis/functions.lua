-- Functions that the server runs on one thread's log or one run's route, each of them atomic.
-- The hash of this text is part of every function's name. A library is never replaced, so that workers of two versions
-- can share a server. In a Cluster, the keys of one call share a hash tag.

local FRAME_START = '{"seq":'    -- what a frame begins with, before its seq
local BATCHES_BYTES = 4096      -- in a thread's head, for the last batches of about seventy workers
local SEQ_SKIP = 1000000        -- numbers that are skipped where the latest ones may have been lost
local HEAD_MS = 86400000        -- how long a thread's epoch and seq are remembered after it was last used
local ROUTE_MS = 86400000       -- how long a live run's route is kept after it was last used

-- State of this server process: a server that restarts reads this text again.
local process                   -- its run id
local promoted = false          -- whether it is known to have been a replica

local function text(number)
  return string.format('%.0f', number)
end

-- Identifies the keeper of the numbers. It changes when the process restarts and when a replica is promoted: both may
-- have missed the latest numbers. `synced` says that this server syncs each write before it answers, as the client read
-- from its configuration. A promoted replica received its writes asynchronously, whatever its configuration.
local function keeper(synced)
  process = process or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local replication = redis.call('INFO', 'replication')
  promoted = promoted or not string.find(replication, 'master_replid2:0000000000000000000000000000000000000000', 1, true)
  return {
    name = string.sub(process, 1, 16) .. string.sub(string.match(replication, 'master_replid:(%x+)'), 1, 16),
    forgets = synced ~= '1' or promoted,
  }
end

local function now_ms(time)
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Parses "events bytes milliseconds synced": the retention, and what the client knows of the server.
local function settings(words)
  local events, bytes, ms, synced = string.match(words, '^(%d+) (%d+) (%d+) ([01])$')
  local time = redis.call('TIME')
  local now = now_ms(time)
  return {
    events = tonumber(events),
    most = events,
    bytes = tonumber(bytes),
    ms = tonumber(ms),
    head_ms = text(math.max(HEAD_MS, 2 * tonumber(ms))),
    now = now,
    stamp = '-' .. text(now),
    instant = time[1] .. '.' .. time[2],
    keeper = keeper(synced),
  }
end

-- Skips numbers and records that in the log: a reader can tell numbers that were never assigned from expired events.
local function skip(log, state, keep, numbers)
  local first = state.seq + 1
  state.seq = state.seq + numbers
  if keep.events > 0 then
    redis.call('XADD', log, text(state.seq) .. keep.stamp, 'h', text(first), 'b', text(state.size))
  end
end

-- Loads a thread's state, or begins a new epoch where there is none. It is stored as one string of MessagePack values,
-- which the server packs and unpacks in C: see `store` for their order. Of each worker the last batch is known: of the
-- worker that sent last in `worker`, `batch`, `last` and `receivers`; of the others in `others`, the latest first, each
-- as "|worker batch last receivers".
local function load(log, head, keep, worker)
  local stored = redis.call('GET', head)
  if not stored then
    -- Frames of an epoch that was forgotten are of no use.
    redis.call('DEL', log)
    return {
      epoch = string.sub(redis.sha1hex(worker .. head .. keep.instant), 1, 16),
      seq = 0, size = 0, from = 0, due = 0, touched = 0, worker = '', batch = 0, last = 0, receivers = 0, others = '',
    }
  end
  local epoch, seq, name, size, from, due, touched, latest, batch, last, receivers, others = cmsgpack.unpack(stored)
  if type(epoch) ~= 'string' then
    error('the head of the thread has another format')
  end
  local state = {
    epoch = epoch,
    seq = seq,
    size = size,                    -- bytes of all frames that were ever appended
    from = from,                    -- the same, before the oldest frame that is retained
    due = due,                      -- when that frame expires
    touched = touched,              -- when the log's own expiry was last set
    worker = latest, batch = batch, last = last, receivers = receivers, others = others,
  }
  if name ~= keep.keeper.name and keep.keeper.forgets then
    skip(log, state, keep, SEQ_SKIP)
    state.touched = 0
  end
  return state
end

-- Drops what is expired or over the size, oldest first. The latest entry stays whatever its size.
local function trim(log, state, keep)
  while state.due <= keep.now or state.size - state.from > keep.bytes do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if not oldest then
      state.due, state.from = keep.now + keep.ms, state.size
      return
    end
    local seq, ms = string.match(oldest[1], '^(%d+)%-(%d+)$')
    state.due, state.from = tonumber(ms) + keep.ms, tonumber(oldest[2][4])
    local expired = state.due <= keep.now
    if expired or (state.size - state.from > keep.bytes and tonumber(seq) < state.seq) then
      redis.call('XDEL', log, oldest[1])
    else
      return
    end
  end
end

local function store(log, head, state, keep)
  if keep.now - state.touched > keep.ms / 4 then
    -- For threads that are used no more. It comes later than the expiry of each frame.
    redis.call('PEXPIRE', log, text(2 * keep.ms))
    state.touched = keep.now
  end
  redis.call('SET', head, cmsgpack.pack(
    state.epoch, state.seq, keep.keeper.name, state.size, state.from, state.due, state.touched,
    state.worker, state.batch, state.last, state.receivers, state.others
  ), 'PX', keep.head_ms)
end

-- The worker's last batch, if it is remembered: its number, the last seq it was given, how many workers received it.
local function last_batch(state, worker)
  if state.worker == worker then
    return state.batch, state.last, state.receivers
  end
  local batch, last, receivers = string.match(state.others, '|' .. worker .. ' (%d+) (%d+) (%d+)')
  if batch then
    return tonumber(batch), tonumber(last), tonumber(receivers)
  end
end

local function set_last_batch(state, worker, batch, last, receivers)
  if state.worker ~= worker then
    local others = string.gsub(state.others, '|' .. worker .. '[^|]*', '', 1)
    if state.worker ~= '' then
      local latest = {state.worker, text(state.batch), text(state.last), text(state.receivers)}
      others = '|' .. table.concat(latest, ' ') .. others
    end
    if #others > BATCHES_BYTES then
      others = string.match(string.sub(others, 1, BATCHES_BYTES), '^(.*)|')
    end
    state.worker, state.others = worker, others
  end
  state.batch, state.last, state.receivers = batch, last, receivers
end

-- Appends one batch of one thread: `skipped` numbers, then the events, one a line, each without its seq.
-- Returns the epoch, the last seq, and how many workers received the events.
local function append(log, head, keep, worker, number, skipped, events)
  local state = load(log, head, keep, worker)
  local done, last, receivers = last_batch(state, worker)
  if done and done >= number then
    -- It is sent again because its answer was lost: it is done, and so is every earlier one.
    store(log, head, state, keep)
    return state.epoch, text(last), receivers
  end
  local after = state.seq
  if skipped > 0 then
    skip(log, state, keep, skipped)
  end
  local lines, seq, at, size = {''}, state.seq, 1, #events
  local given = text(seq)
  while at <= size do
    local stop = string.find(events, '\n', at, true) or size + 1
    seq = seq + 1
    given = text(seq)
    local frame = FRAME_START .. given .. string.sub(events, at, stop - 1)
    lines[#lines + 1] = frame
    if keep.events > 0 then
      redis.call('XADD', log, 'MAXLEN', '=', keep.most, given .. keep.stamp, 'f', frame, 'b', state.size)
      state.size = state.size + #frame
    end
    at = stop + 1
  end
  state.seq = seq
  if keep.events > 0 then
    trim(log, state, keep)
  end
  lines[1] = state.epoch .. ' ' .. text(after) .. ' ' .. given
  receivers = redis.call('SPUBLISH', log, table.concat(lines, '\n'))
  set_last_batch(state, worker, number, seq, receivers)
  store(log, head, state, keep)
  return state.epoch, given, receivers
end

-- KEYS: log and head of each thread. ARGV: settings, worker, and for each thread two: "batch skipped", and its events.
-- Returns three values for each thread: epoch, last seq and receivers; or an error's text, 0 and -1.
redis.register_function('bridgekit_append_@VERSION@', function(keys, args)
  local keep, answers = settings(args[1]), {}
  for index = 1, #keys, 2 do
    local number, skipped = string.match(args[index + 2], '^(%d+) (%d+)$')
    -- An error of one thread, such as a foreign value under its key, does not affect the others.
    local fine, epoch, last, receivers = pcall(
      append, keys[index], keys[index + 1], keep, args[2], tonumber(number), tonumber(skipped), args[index + 3]
    )
    if not fine then
      epoch, last, receivers = type(epoch) == 'table' and epoch.err or tostring(epoch), '0', -1
    end
    answers[#answers + 1], answers[#answers + 2], answers[#answers + 3] = epoch, last, receivers
  end
  return answers
end)

-- KEYS: log and head of a thread. ARGV: settings, worker, and a cursor: epoch and seq, or two empty strings.
-- Returns epoch and seq of the log, and every entry after the cursor; for one of another epoch, or from ahead of the
-- log, all entries. An entry is a frame, or "h" with the first and last of the numbers that were skipped.
redis.register_function('bridgekit_read_@VERSION@', function(keys, args)
  local keep = settings(args[1])
  local state = load(keys[1], keys[2], keep, args[2])
  if keep.events > 0 then
    trim(keys[1], state, keep)
  end
  store(keys[1], keys[2], state, keep)
  local answer = {state.epoch, text(state.seq)}
  local after = args[3] == state.epoch and tonumber(args[4]) or 0
  if args[3] == '' or after == state.seq then
    return answer
  end
  if after > state.seq then
    after = 0
  end
  for index, entry in ipairs(redis.call('XRANGE', keys[1], text(after + 1), '+')) do
    if entry[2][1] == 'h' then
      answer[index + 2] = 'h' .. entry[2][2] .. ' ' .. string.match(entry[1], '^%d+')
    else
      answer[index + 2] = entry[2][2]
    end
  end
  return answer
end)

-- KEYS: a run's route. ARGV: its thread. Returns the thread that the run has; where it is this one, the run is live.
redis.register_function('bridgekit_add_route_@VERSION@', function(keys, args)
  local thread = redis.call('HGET', keys[1], 'thread')
  if not thread then
    redis.call('HSET', keys[1], 'thread', args[1])
  elseif thread ~= args[1] then
    return thread
  end
  redis.call('HDEL', keys[1], 'closed')
  redis.call('PEXPIRE', keys[1], ROUTE_MS)
  return args[1]
end)

-- KEYS: a run's route. Returns its thread or nil, and keeps the route of a live run for as long again.
redis.register_function('bridgekit_get_route_@VERSION@', function(keys, args)
  local route = redis.call('HMGET', keys[1], 'thread', 'closed')
  if route[1] and not route[2] and redis.call('PTTL', keys[1]) < ROUTE_MS / 2 then
    redis.call('PEXPIRE', keys[1], ROUTE_MS)
  end
  return route[1]
end)

-- KEYS: active runs, workers. ARGV: worker, run, its thread and agent as JSON. The worker executes the run.
redis.register_function('bridgekit_open_run_@VERSION@', function(keys, args)
  redis.call('HSET', keys[2], args[1], text(now_ms(redis.call('TIME'))))
  redis.call('HSET', keys[1], args[2], args[1] .. args[3])
  return 1
end)

-- KEYS: active runs. ARGV: worker, run. The run has ended, unless another worker has taken it over.
redis.register_function('bridgekit_close_run_@VERSION@', function(keys, args)
  local run = redis.call('HGET', keys[1], args[2])
  if run and string.sub(run, 1, #args[1]) == args[1] then
    redis.call('HDEL', keys[1], args[2])
  end
  return 1
end)

-- KEYS: active runs, workers. ARGV: worker, milliseconds. Renews the worker's lease. With milliseconds above 0, the runs
-- of all workers whose lease is older are this worker's from now on; returns each with its thread and agent.
redis.register_function('bridgekit_renew_lease_@VERSION@', function(keys, args)
  local now, dead, taken = now_ms(redis.call('TIME')), {}, {}
  redis.call('HSET', keys[2], args[1], text(now))
  if args[2] == '0' then
    return taken
  end
  local workers = redis.call('HGETALL', keys[2])
  for index = 1, #workers, 2 do
    if now - tonumber(workers[index + 1]) > tonumber(args[2]) then
      dead[workers[index]] = true
      redis.call('HDEL', keys[2], workers[index])
    end
  end
  if next(dead) then
    local runs = redis.call('HGETALL', keys[1])
    for index = 1, #runs, 2 do
      if dead[string.sub(runs[index + 1], 1, #args[1])] then
        local rest = string.sub(runs[index + 1], #args[1] + 1)
        redis.call('HSET', keys[1], runs[index], args[1] .. rest)
        taken[#taken + 1], taken[#taken + 2] = runs[index], rest
      end
    end
  end
  return taken
end)

-- KEYS: a run's route. ARGV: milliseconds. The run is closed: its route is kept for so long after the first call.
redis.register_function('bridgekit_close_route_@VERSION@', function(keys, args)
  if redis.call('EXISTS', keys[1]) == 1 and redis.call('HSETNX', keys[1], 'closed', '1') == 1 then
    redis.call('PEXPIRE', keys[1], args[1])
  end
  return 1
end)
