-- What is done to one thread's log, or to one run's route, at once and by the server itself.
-- A version of it is never replaced: the text's own hash is part of every name, so that workers of two versions
-- may share a server. Keys of one call share a hash tag in a Cluster.

local PARCELS_BYTES = 4096      -- of one thread's head, for the last parcels of some seventy workers
local FENCE = 1000000           -- numbers that are skipped where the latest ones may have been lost
local HEAD_MS = 86400000        -- how long a thread's epoch and number are remembered after it was last used
local ROUTE_MS = 86400000       -- how long a live run's route is kept after it was last used

-- Of this server process; a restarted one reads this text anew.
local process                   -- its run id
local promoted = false          -- whether it was ever seen to have been a replica

local function text(number)
  return string.format('%.0f', number)
end

-- Who keeps the numbers: changes when the process does and when a replica is promoted, which both may have missed
-- the latest of them. `promise` is the client's word that this server syncs each write before it answers; a promoted
-- replica cannot keep it, because it was told later than the client was.
local function keeper(promise)
  process = process or string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local replication = redis.call('INFO', 'replication')
  promoted = promoted or not string.find(replication, 'master_replid2:0000000000000000000000000000000000000000', 1, true)
  return {
    name = string.sub(process, 1, 16) .. string.sub(string.match(replication, 'master_replid:(%x+)'), 1, 16),
    forgets = promise ~= '1' or promoted,
  }
end

-- "events bytes milliseconds promise": how much of a log is kept, and what the client knows of the server.
local function settings(words)
  local events, bytes, ms, promise = string.match(words, '^(%d+) (%d+) (%d+) ([01])$')
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  return {
    events = tonumber(events),
    most = events,
    bytes = tonumber(bytes),
    ms = tonumber(ms),
    head_ms = text(math.max(HEAD_MS, 2 * tonumber(ms))),
    now = now,
    stamp = '-' .. text(now),
    instant = time[1] .. '.' .. time[2],
    keeper = keeper(promise),
  }
end

-- Leave numbers out, and say so in the log: a reader can then tell what never was from what is kept no longer.
local function hole(log, state, keep, numbers)
  local first = state.seq + 1
  state.seq = state.seq + numbers
  if keep.events > 0 then
    redis.call('XADD', log, text(state.seq) .. keep.stamp, 'h', text(first), 'b', text(state.size))
  end
end

-- The thread's numbering as it stands, begun if there is none. It is one text of MessagePack values, because the server
-- packs and unpacks those itself: see `remember` for what they are. Of each worker the last parcel is known: of the one
-- that sent last by `emitter`, `parcel`, `last` and `told`, of the others in `others`, the latest first, each as
-- "|emitter parcel last told".
local function opened(log, head, keep, emitter)
  local had = redis.call('GET', head)
  if not had then
    -- Frames of a numbering that was forgotten say nothing to anybody.
    redis.call('DEL', log)
    return {
      epoch = string.sub(redis.sha1hex(emitter .. head .. keep.instant), 1, 16),
      seq = 0, size = 0, from = 0, due = 0, touched = 0, emitter = '', parcel = 0, last = 0, told = 0, others = '',
    }
  end
  local epoch, seq, keeper, size, from, due, touched, latest, parcel, last, told, others = cmsgpack.unpack(had)
  if type(epoch) ~= 'string' then
    error('its head is of another version')
  end
  local state = {
    epoch = epoch,
    seq = seq,
    size = size,                    -- bytes of all frames that were ever kept
    from = from,                    -- the same, before the oldest that is still kept
    due = due,                      -- when that one is to go
    touched = touched,              -- when the log was last told how long to live
    emitter = latest, parcel = parcel, last = last, told = told, others = others,
  }
  if keeper ~= keep.keeper.name and keep.keeper.forgets then
    hole(log, state, keep, FENCE)
    state.touched = 0
  end
  return state
end

-- Drop what is too old or too much, oldest first. The latest entry stays whatever its size.
local function trim(log, state, keep)
  while state.due <= keep.now or state.size - state.from > keep.bytes do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if not oldest then
      state.due, state.from = keep.now + keep.ms, state.size
      return
    end
    local seq, ms = string.match(oldest[1], '^(%d+)%-(%d+)$')
    state.due, state.from = tonumber(ms) + keep.ms, tonumber(oldest[2][4])
    local old = state.due <= keep.now
    if old or (state.size - state.from > keep.bytes and tonumber(seq) < state.seq) then
      redis.call('XDEL', log, oldest[1])
    else
      return
    end
  end
end

local function remember(log, head, state, keep)
  if keep.now - state.touched > keep.ms / 4 then
    -- Later than its frames expire: they are dropped one by one, this is for threads that nobody uses any more.
    redis.call('PEXPIRE', log, text(2 * keep.ms))
    state.touched = keep.now
  end
  redis.call('SET', head, cmsgpack.pack(
    state.epoch, state.seq, keep.keeper.name, state.size, state.from, state.due, state.touched,
    state.emitter, state.parcel, state.last, state.told, state.others
  ), 'PX', keep.head_ms)
end

-- The last parcel of that worker, if it is remembered: its number, the last number that it was given, who was told.
local function latest(state, emitter)
  if state.emitter == emitter then
    return state.parcel, state.last, state.told
  end
  local parcel, last, told = string.match(state.others, '|' .. emitter .. ' (%d+) (%d+) (%d+)')
  if parcel then
    return tonumber(parcel), tonumber(last), tonumber(told)
  end
end

local function note(state, emitter, parcel, last, told)
  if state.emitter ~= emitter then
    local others = string.gsub(state.others, '|' .. emitter .. '[^|]*', '', 1)
    if state.emitter ~= '' then
      others = '|' .. table.concat({state.emitter, text(state.parcel), text(state.last), text(state.told)}, ' ') .. others
    end
    if #others > PARCELS_BYTES then
      others = string.match(string.sub(others, 1, PARCELS_BYTES), '^(.*)|')
    end
    state.emitter, state.others = emitter, others
  end
  state.parcel, state.last, state.told = parcel, last, told
end

-- One parcel of one thread: `skip` numbers left out, then `count` events, whose texts follow at args[at]. What stands
-- before and after an event's number is the same for all.
-- Answers the epoch, the last number, and how many subscribers were told.
local function append(log, head, keep, emitter, number, skip, count, args, at)
  local state = opened(log, head, keep, emitter)
  local done, last, told = latest(state, emitter)
  if done and done >= number then
    -- Sent again because the answer was lost: it is done already, and so is every earlier one.
    remember(log, head, state, keep)
    return state.epoch, text(last), told
  end
  local after = state.seq
  if skip > 0 then
    hole(log, state, keep, skip)
  end
  local lines, before, behind, seq = {''}, args[3], args[4], state.seq
  local given = text(seq)
  for place = 1, count do
    seq = seq + 1
    given = text(seq)
    local frame = before .. given .. behind .. args[at + place - 1]
    lines[place + 1] = frame
    if keep.events > 0 then
      redis.call('XADD', log, 'MAXLEN', '=', keep.most, given .. keep.stamp, 'f', frame, 'b', state.size)
      state.size = state.size + #frame
    end
  end
  state.seq = seq
  if keep.events > 0 then
    trim(log, state, keep)
  end
  lines[1] = state.epoch .. ' ' .. text(after) .. ' ' .. given
  told = redis.call('SPUBLISH', log, table.concat(lines, '\n'))
  note(state, emitter, number, seq, told)
  remember(log, head, state, keep)
  return state.epoch, given, told
end

-- KEYS: log and head of each thread. ARGV: settings, emitter, what stands before and after each event's number, and for
-- each thread: parcel number, skip and count, as MessagePack, and its events. Answers three values a thread: epoch, last
-- number and subscribers; or an error's text, 0 and -1.
redis.register_function('bridgekit_append_@VERSION@', function(keys, args)
  local keep, answers, at = settings(args[1]), {}, 5
  for place = 1, #keys, 2 do
    local number, skip, count = cmsgpack.unpack(args[at])
    -- One thread's trouble, such as a foreign value under its key, is not the others'.
    local fine, epoch, last, told =
      pcall(append, keys[place], keys[place + 1], keep, args[2], number, skip, count, args, at + 1)
    if not fine then
      epoch, last, told = type(epoch) == 'table' and epoch.err or tostring(epoch), '0', -1
    end
    answers[#answers + 1], answers[#answers + 2], answers[#answers + 3] = epoch, last, told
    at = at + 1 + count
  end
  return answers
end)

-- KEYS: log and head of a thread. ARGV: settings, emitter, and how far a reader has come: epoch and number, or two
-- empty texts. Answers epoch and number of the log, and all that the reader has not: for one of another numbering that
-- is all there is. An entry is a frame, or "h" with a hole's first and last number.
redis.register_function('bridgekit_read_@VERSION@', function(keys, args)
  local keep = settings(args[1])
  local state = opened(keys[1], keys[2], keep, args[2])
  if keep.events > 0 then
    trim(keys[1], state, keep)
  end
  remember(keys[1], keys[2], state, keep)
  local answer = {state.epoch, text(state.seq)}
  local after = args[3] == state.epoch and tonumber(args[4]) or 0
  if args[3] ~= '' and after < state.seq then
    for place, entry in ipairs(redis.call('XRANGE', keys[1], text(after + 1), '+')) do
      if entry[2][1] == 'h' then
        answer[place + 2] = 'h' .. entry[2][2] .. ' ' .. string.match(entry[1], '^%d+')
      else
        answer[place + 2] = entry[2][2]
      end
    end
  end
  return answer
end)

-- KEYS: a run's route. ARGV: its thread. Answers the thread that now holds; where it is the same, the run is live.
redis.register_function('bridgekit_route_@VERSION@', function(keys, args)
  local holds = redis.call('HGET', keys[1], 'thread')
  if not holds then
    redis.call('HSET', keys[1], 'thread', args[1])
  elseif holds ~= args[1] then
    return holds
  end
  redis.call('HDEL', keys[1], 'closed')
  redis.call('PEXPIRE', keys[1], ROUTE_MS)
  return args[1]
end)

-- KEYS: a run's route. Answers its thread or nil; a live run is remembered for as long again.
redis.register_function('bridgekit_find_@VERSION@', function(keys, args)
  local route = redis.call('HMGET', keys[1], 'thread', 'closed')
  if route[1] and not route[2] and redis.call('PTTL', keys[1]) < ROUTE_MS / 2 then
    redis.call('PEXPIRE', keys[1], ROUTE_MS)
  end
  return route[1]
end)

-- KEYS: a run's route. ARGV: milliseconds. The run is over: its route lingers for so long, counted from the first call.
redis.register_function('bridgekit_close_@VERSION@', function(keys, args)
  if redis.call('EXISTS', keys[1]) == 1 and redis.call('HSETNX', keys[1], 'closed', '1') == 1 then
    redis.call('PEXPIRE', keys[1], args[1])
  end
  return 1
end)
