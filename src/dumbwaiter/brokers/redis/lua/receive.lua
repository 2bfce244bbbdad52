-- ARGV: how many at most, lock in ms, tag, the lanes in order as digits, 1 if a wake-up led here.
-- Returns -1 when there is no such queue, else {{token, count, fields}, ...}, the ms until the next event, 1 if nothing
-- that is ready was left there, and the server's time in ms.
if is_missing() then
  return -1
end
local time = now()
local moved = advance(time)
local left, until_, tag = math.min(tonumber(ARGV[1]), AT_ONCE), time + ARGV[2], '|' .. ARGV[3]
local taken, locks = {}, {}
-- Large bodies come few at a time, so that no answer takes longer than a client waits for it.
local ENOUGH_NBYTES, FIRST_STEP = 8 * 1024 * 1024, 4
local nbytes = 0
-- What was taken before a group turned out to be missing must be locked; it is told when nothing else is to be told.
local broken

local function lock(lane, id, count, fields)
  local token = place_of(lane, id) .. tag
  locks[#locks + 1] = until_
  locks[#locks + 1] = token
  taken[#taken + 1] = {token, count, fields}
  left = left - 1
  for _, part in ipairs(fields) do
    nbytes = nbytes + #part
  end
  if nbytes > ENOUGH_NBYTES then
    left = 0
  end
end

-- All that came back is older than all that is new, in the same lane.
local function take_back(lane, stream)
  for _, token in ipairs(call('ZRANGEBYLEX', BACK, '[' .. lane .. '|', '(' .. lane .. '}', 'LIMIT', 0, left)) do
    if left <= 0 then
      break
    end
    call('ZREM', BACK, token)
    moved = moved - 1
    local _, id = entry_of(token)
    if id then -- what else may stand there is not ours
      local count = (count_of(stream, id) or 0) + 1
      local claimed = redis.pcall('XCLAIM', stream, GROUP, CONSUMER, 0, id, 'RETRYCOUNT', count)
      if claimed.err then
        broken = claimed
        call('ZADD', BACK, 0, token)
        break
      elseif claimed[1] then
        lock(lane, id, count, claimed[1][2])
      else
        call('XACK', stream, GROUP, id) -- somebody has trimmed the stream
      end
    end
  end
end

local function take_new(lane, stream)
  local step = FIRST_STEP
  while left > 0 do
    local wanted = math.min(step, left)
    local read = redis.pcall('XREADGROUP', 'GROUP', GROUP, CONSUMER, 'COUNT', wanted, 'STREAMS', stream, '>')
    if read and read.err then
      broken = read
      break
    end
    local entries = read and read[1][2] or {}
    for _, entry in ipairs(entries) do
      lock(lane, entry[1], 1, entry[2])
    end
    if #entries < wanted then
      break
    end
    step = 2 * step
  end
end

local has_back = call('ZCARD', BACK) > 0
for lane in string.gmatch(ARGV[4], '%d') do
  local stream = LANES[lane + 1]
  if left > 0 and has_back then
    take_back(lane, stream)
  end
  -- Most lanes are empty at most times, and asking for their length costs a fraction of reading them.
  if left > 0 and call('XLEN', stream) > 0 then
    take_new(lane, stream)
  end
end

if #locks > 0 then
  call('ZADD', LOCKS, unpack(locks))
elseif broken then
  return broken
elseif ARGV[5] == '1' then
  -- Nothing is ready: all wake-ups until now are for messages that others have taken.
  for _, stream in ipairs({HIGH, NORMAL, LOW, BELL}) do
    call('XGROUP', 'SETID', stream, WAKE, '$')
  end
end
if moved > 0 then
  ring(moved)
end
return {taken, next_event(time), left > 0 and 1 or 0, time}
