-- Functions that the server executes on thread logs and on a run's route. Each call is atomic.
-- The hash of this text is part of every function's name. A library is never replaced, so workers of two versions
-- can share a server. In a Cluster, the keys of one call share a hash tag.

local FRAME_START = '{"seq":'   -- the start of a frame, before its seq
local BATCHES_BYTES = 4096      -- limit in a thread's head on the last batches of workers: about seventy workers
local SEQ_SKIP = 1000000        -- how many seqs a thread skips when its latest ones may have been lost
local HEAD_MS = 86400000        -- a thread's epoch and seq are deleted after this time without use
local ROUTE_MS = 86400000       -- a live run's route is deleted after this time without use

-- State of this server process: a server that restarts loads this text again.
local process                   -- its run id
local promoted = false          -- whether it is known to have been a replica

local function text(number)
  return string.format('%.0f', number)
end

-- Identifies the process and replication history that assign seqs. It changes when the process restarts and when a
-- replica is promoted. Either may have lost the latest seqs. `synced` is '1' if this server syncs each write before it
-- replies, according to its configuration. A promoted replica received its writes asynchronously in any case.
local function read_origin(synced)
  process = process or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local replication = redis.call('INFO', 'replication')
  promoted = promoted or not string.find(replication, 'master_replid2:0000000000000000000000000000000000000000', 1, true)
  return {
    id = string.sub(process, 1, 16) .. string.sub(string.match(replication, 'master_replid:(%x+)'), 1, 16),
    may_lose_writes = synced ~= '1' or promoted,
  }
end

local function now_ms(time)
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Parses "events bytes milliseconds synced": the retention, and whether the server syncs each write.
local function parse_settings(text_settings)
  local events, bytes, ms, synced = string.match(text_settings, '^(%d+) (%d+) (%d+) ([01])$')
  local time = redis.call('TIME')
  local now = now_ms(time)
  return {
    events = tonumber(events),
    max_events = events,
    bytes = tonumber(bytes),
    ms = tonumber(ms),
    head_ms = text(math.max(HEAD_MS, 2 * tonumber(ms))),
    now = now,
    id_suffix = '-' .. text(now),
    time_text = time[1] .. '.' .. time[2],
    origin = read_origin(synced),
  }
end

-- Skips seqs and records that in the log, so that a reader can distinguish skipped seqs from expired events.
local function skip(log, state, settings, numbers)
  local first = state.seq + 1
  state.seq = state.seq + numbers
  if settings.events > 0 then
    redis.call('XADD', log, text(state.seq) .. settings.id_suffix, 'h', text(first), 'b', text(state.size))
  end
end

-- Loads a thread's state, or starts a new epoch if there is none. The state is one string of MessagePack values, which
-- the server packs and unpacks in C; `store` has their order. It contains the last batch of each worker. `worker`,
-- `batch`, `last` and `receivers` describe that of the latest sender. `others` has those of other workers, the latest
-- first, each as "|worker batch last receivers".
local function load(log, head, settings, worker)
  local stored = redis.call('GET', head)
  if not stored then
    -- The epoch has expired, so its frames cannot be replayed.
    redis.call('DEL', log)
    return {
      epoch = string.sub(redis.sha1hex(worker .. head .. settings.time_text), 1, 16),
      seq = 0, size = 0, from = 0, begun = 0, expires = 0, worker = '', batch = 0, last = 0, receivers = 0, others = '',
    }
  end
  local epoch, seq, name, size, from, begun, expires, latest, batch, last, receivers, others = cmsgpack.unpack(stored)
  if type(epoch) ~= 'string' then
    error('the head of the thread has another format')
  end
  local state = {
    epoch = epoch,
    seq = seq,
    size = size,                    -- bytes of all frames ever appended
    from = from,                    -- bytes of all frames before the oldest retained one
    begun = begun,                  -- when that frame was appended
    expires = expires,              -- when the log's key expires, or 0 if that is not known
    worker = latest, batch = batch, last = last, receivers = receivers, others = others,
  }
  if name ~= settings.origin.id and settings.origin.may_lose_writes then
    skip(log, state, settings, SEQ_SKIP)
    state.expires = 0
  end
  return state
end

-- Deletes expired entries, and entries beyond the size limit, oldest first. The latest entry stays whatever its size.
local function trim(log, state, settings)
  while state.begun + settings.ms <= settings.now or state.size - state.from > settings.bytes do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if not oldest then
      state.begun, state.from = settings.now, state.size
      return
    end
    local seq, ms = string.match(oldest[1], '^(%d+)%-(%d+)$')
    state.begun, state.from = tonumber(ms), tonumber(oldest[2][4])
    local expired = state.begun + settings.ms <= settings.now
    if expired or (state.size - state.from > settings.bytes and tonumber(seq) < state.seq) then
      redis.call('XDEL', log, oldest[1])
    else
      return
    end
  end
end

local function store(log, head, state, settings)
  local expires = settings.now + 2 * settings.ms
  -- Deletes the log of a thread that is no longer used. This is later than the expiry of each frame. The key does not
  -- exist before the first event.
  if state.expires < expires - settings.ms / 4 and redis.call('PEXPIRE', log, text(2 * settings.ms)) == 1 then
    state.expires = expires
  end
  redis.call('SET', head, cmsgpack.pack(
    state.epoch, state.seq, settings.origin.id, state.size, state.from, state.begun, state.expires,
    state.worker, state.batch, state.last, state.receivers, state.others
  ), 'PX', settings.head_ms)
end

-- Returns the worker's last batch if it is stored: its number, its last seq, and how many workers received it.
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

-- Appends one batch of one thread: skips `skipped` seqs, then appends the events, one per line, each without its seq.
-- Returns the epoch, the last seq, and how many workers received the events.
local function append(log, head, settings, worker, number, skipped, events)
  local state = load(log, head, settings, worker)
  local done, last, receivers = last_batch(state, worker)
  if done and done >= number then
    -- The worker sent it again because the reply was lost. This batch and all earlier ones are in the log.
    store(log, head, state, settings)
    return state.epoch, text(last), receivers
  end
  local after = state.seq
  if skipped > 0 then
    skip(log, state, settings, skipped)
  end
  local lines, seq, at, size = {''}, state.seq, 1, #events
  local given = text(seq)
  while at <= size do
    local stop = string.find(events, '\n', at, true) or size + 1
    seq = seq + 1
    given = text(seq)
    local frame = FRAME_START .. given .. string.sub(events, at, stop - 1)
    lines[#lines + 1] = frame
    if settings.events > 0 then
      redis.call('XADD', log, 'MAXLEN', '=', settings.max_events, given .. settings.id_suffix, 'f', frame, 'b', state.size)
      state.size = state.size + #frame
    end
    at = stop + 1
  end
  state.seq = seq
  if settings.events > 0 then
    trim(log, state, settings)
  end
  lines[1] = state.epoch .. ' ' .. text(after) .. ' ' .. given
  receivers = redis.call('SPUBLISH', log, table.concat(lines, '\n'))
  set_last_batch(state, worker, number, seq, receivers)
  store(log, head, state, settings)
  return state.epoch, given, receivers
end

-- Removes the entries of an append that failed before it changed the head, because the worker sends the batch again.
-- The log is written again without them: after XDEL, a stream refuses ids that are not greater than the deleted ones.
local function undo(log, head)
  local stored, seq, kept, failed = redis.call('GET', head), 0, {}, false
  if stored then
    seq = select(2, cmsgpack.unpack(stored))
  end
  for _, entry in ipairs(redis.call('XRANGE', log, '-', '+')) do
    if tonumber(string.match(entry[1], '^%d+')) > seq and entry[2][3] == 'b' then  -- no other program wrote it
      failed = true
    else
      kept[#kept + 1] = entry
    end
  end
  if failed then
    local expires = redis.call('PEXPIRETIME', log)
    redis.call('DEL', log)
    for _, entry in ipairs(kept) do
      redis.call('XADD', log, entry[1], unpack(entry[2]))
    end
    if expires > 0 then
      redis.call('PEXPIREAT', log, text(expires))
    end
  end
end

-- KEYS: log and head of each thread. ARGV: settings, worker, and two for each thread: "batch skipped", and its events.
-- Returns three values for each thread: epoch, last seq and receivers; or the text of an error, 0 and -1.
redis.register_function('bridgekit_append_@VERSION@', function(keys, args)
  local settings, answers = parse_settings(args[1]), {}
  for index = 1, #keys, 2 do
    local number, skipped = string.match(args[index + 2], '^(%d+) (%d+)$')
    -- An error in one thread, such as another program's value under its key, does not affect the others.
    local ok, epoch, last, receivers = pcall(
      append, keys[index], keys[index + 1], settings, args[2], tonumber(number), tonumber(skipped), args[index + 3]
    )
    if not ok then
      pcall(undo, keys[index], keys[index + 1])
      epoch, last, receivers = type(epoch) == 'table' and epoch.err or tostring(epoch), '0', -1
    end
    answers[#answers + 1], answers[#answers + 2], answers[#answers + 3] = epoch, last, receivers
  end
  return answers
end)

-- KEYS: log and head of a thread. ARGV: settings, worker, and a cursor: epoch and seq, or two empty strings.
-- Returns epoch and seq of the log, and every entry after the cursor. A cursor of another epoch, or one ahead of the
-- log, gives all entries. An entry is a frame, or "h" with the first and the last skipped seq.
redis.register_function('bridgekit_read_@VERSION@', function(keys, args)
  local settings = parse_settings(args[1])
  local state = load(keys[1], keys[2], settings, args[2])
  redis.call('XTRIM', keys[1], 'MAXLEN', '=', settings.max_events)  -- an earlier retention may have kept more
  trim(keys[1], state, settings)
  store(keys[1], keys[2], state, settings)
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

-- KEYS: a run's route. ARGV: its thread. Returns the run's thread, and reopens the route if that is the given thread.
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

-- KEYS: a run's route. Returns its thread or nil, and extends the expiry of a live run's route.
redis.register_function('bridgekit_get_route_@VERSION@', function(keys, args)
  local route = redis.call('HMGET', keys[1], 'thread', 'closed')
  if route[1] and not route[2] and redis.call('PTTL', keys[1]) < ROUTE_MS / 2 then
    redis.call('PEXPIRE', keys[1], ROUTE_MS)
  end
  return route[1]
end)

-- Identifies what is stored in the slot of the active runs, which has the used tickets too. It changes when that is
-- lost, and when this server may have lost its latest writes. ARGV of its callers: `synced` as above, and a new value.
local function read_generation(key, synced, new)
  redis.call('SET', key, new, 'NX')
  local origin = read_origin(synced)
  return redis.call('GET', key) .. (origin.may_lose_writes and origin.id or '')
end

-- KEYS: generation. ARGV: synced, a new value.
redis.register_function('bridgekit_generation_@VERSION@', function(keys, args)
  return read_generation(keys[1], args[1], args[2])
end)

-- KEYS: active runs. ARGV: worker, run, its thread and agent as JSON. The worker executes the run.
redis.register_function('bridgekit_open_run_@VERSION@', function(keys, args)
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

-- KEYS: active runs, workers, generation, retention. ARGV: worker, '1' to list the worker's own runs as well, synced, a
-- new value, the worker's retention, or '' for a process that only publishes, and each worker that counts as dead with
-- its lease. Renews the worker's lease. The runs of the dead workers, unless they have renewed their leases, are this
-- worker's from now on. Returns the generation, the latest worker's retention or '', all workers with their leases, and
-- each of the runs with its thread and agent.
redis.register_function('bridgekit_renew_lease_@VERSION@', function(keys, args)
  local found, taken = {}, {read_generation(keys[3], args[3], args[4])}
  if args[5] ~= '' then
    redis.call('SET', keys[4], args[5])
  end
  redis.call('HSET', keys[2], args[1], text(now_ms(redis.call('TIME'))))
  for index = 6, #args, 2 do
    if redis.call('HGET', keys[2], args[index]) == args[index + 1] then
      found[args[index]] = true
      redis.call('HDEL', keys[2], args[index])
    end
  end
  taken[2] = redis.call('GET', keys[4]) or ''
  taken[3] = args[5] ~= '' and redis.call('HGETALL', keys[2]) or {}
  if args[2] == '1' then
    found[args[1]] = true
  end
  if next(found) then
    local runs = redis.call('HGETALL', keys[1])
    for index = 1, #runs, 2 do
      if found[string.sub(runs[index + 1], 1, #args[1])] then
        local rest = string.sub(runs[index + 1], #args[1] + 1)
        redis.call('HSET', keys[1], runs[index], args[1] .. rest)
        taken[#taken + 1], taken[#taken + 2] = runs[index], rest
      end
    end
  end
  return taken
end)

-- KEYS: a run's route. ARGV: milliseconds. Closes the route: it is deleted this long after the first call.
redis.register_function('bridgekit_close_route_@VERSION@', function(keys, args)
  if redis.call('EXISTS', keys[1]) == 1 and redis.call('HSETNX', keys[1], 'closed', '1') == 1 then
    redis.call('PEXPIRE', keys[1], args[1])
  end
  return 1
end)
