-- Before each script of a queue. All keys of a queue come in this order.
--
-- A place names an entry of a lane so that places sort by age: lane|ms-seq, both padded with zeros to 20 digits, as
-- many as a stream's ids can have. A token is place|tag, where the tag belongs to one receive: only who got it from that
-- receive knows it. It stands in LOCKS, with the end of the lock as its score, as long as the message is locked.
--
-- A script is not rolled back. A server that is out of memory refuses the first write of a script unless that one
-- frees some, and none after it: so each script begins with the write that may be refused, or with one that frees.
local HIGH, NORMAL, LOW, BELL, LOCKS, BACK, LATER, SCHEDULED, DEAD, WHY, IDS = unpack(KEYS)
local LANES = {HIGH, NORMAL, LOW}
local GROUP, WAKE, CONSUMER = 'dumbwaiter', 'dumbwaiter-wake', 'dumbwaiter'
local AT_ONCE = 500
local MOST_VALUES = 7900 -- Lua passes some 8,000 to a call
local call = redis.call

local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_missing()
  return call('EXISTS', HIGH, NORMAL, LOW, BELL) < 4
end

local function place_of(lane, id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return lane .. '|' .. string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end

-- The stream and the id of a token's entry.
local function entry_of(token)
  local lane, ms, seq = string.match(token, '^([012])|0*(%d+)%-0*(%d+)|')
  if lane then
    return LANES[lane + 1], ms .. '-' .. seq
  end
end

-- The fields of an entry as one call takes them: of those that are too many, the body alone.
local function bounded(fields)
  if #fields <= MOST_VALUES then
    return fields
  end
  for i = 1, #fields, 2 do
    if fields[i] == 'body' then
      return {'body', fields[i + 1]}
    end
  end
  return {fields[1], fields[2]}
end

-- The same entry, when nobody holds it.
local function unheld(token)
  return string.match(token, '^(.-|.-|)') .. '-'
end

-- How often the group has handed the entry out; nil when it is not pending.
local function count_of(stream, id)
  local pending = redis.pcall('XPENDING', stream, GROUP, id, id, 1)
  if pending.err == nil and pending[1] then
    return pending[1][4]
  end
end

local function set_count(stream, id, count)
  call('XCLAIM', stream, GROUP, CONSUMER, 0, id, 'RETRYCOUNT', count, 'JUSTID')
end

-- Wake as many waiting brokers as there are messages for them. New entries of a lane wake them by themselves.
local function ring(times)
  for _ = 1, math.min(times, 20) do
    call('XADD', BELL, 'MAXLEN', 100, '*', 'w', '')
  end
end

local function move_scheduled(member)
  local id = string.sub(member, 3)
  local packed = call('HGET', SCHEDULED, id)
  if packed then
    call('HDEL', SCHEDULED, id)
    local is_ours, entry = pcall(cmsgpack.unpack, packed)
    local stream = is_ours and type(entry) == 'table' and LANES[(tonumber(entry[1]) or -1) + 1]
    if stream and #entry > 2 and #entry % 2 == 1 then
      call('XADD', stream, '*', unpack(entry, 2))
    end
  end
end

-- Make ready what is due: locks that ran out keep their token, for their work may be done and nobody else has begun it.
-- Returns how many of them no stream has announced.
local function advance(time)
  local moved = 0
  for _, key in ipairs({LOCKS, LATER}) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    if first and tonumber(first) <= time then
      local due = call('ZRANGEBYSCORE', key, '-inf', time, 'LIMIT', 0, AT_ONCE)
      call('ZREM', key, unpack(due))
      for _, member in ipairs(due) do
        if string.sub(member, 1, 2) == 'd|' then
          move_scheduled(member)
        elseif entry_of(member) then -- what else may stand there is not ours
          call('ZADD', BACK, 0, member)
          moved = moved + 1
        end
      end
    end
  end
  return moved
end

-- Milliseconds until the next lock or delay ends; -1 if there is none.
local function next_event(time)
  local next_one = -1
  for _, key in ipairs({LOCKS, LATER}) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    if first then
      local left = math.max(1, first - time)
      next_one = next_one < 0 and left or math.min(next_one, left)
    end
  end
  return math.ceil(next_one)
end

-- Which of the tokens are held or were until their lock ran out; they are let go. The others are lost when their entry
-- is still here, for then somebody else has it.
local function let_go(tokens)
  local held = call('ZMSCORE', LOCKS, unpack(tokens))
  call('ZREM', LOCKS, unpack(tokens))
  for i, token in ipairs(tokens) do
    held[i] = held[i] or call('ZREM', BACK, token) == 1
  end
  return held
end
