-- ARGV: nothing. Returns -1 when there is no such queue, else ready, locked, delayed, dead, age in ms of the oldest.
if is_missing() then
  return -1
end
local time = now()
for _ = 1, 20 do
  local moved = advance(time)
  ring(moved)
  if moved == 0 then
    break
  end
end

local function last_delivered(stream)
  for _, group in ipairs(call('XINFO', 'GROUPS', stream)) do
    local facts = {}
    for i = 1, #group, 2 do
      facts[group[i]] = group[i + 1]
    end
    if facts['name'] == GROUP then
      return facts['last-delivered-id']
    end
  end
  return '0-0'
end

local here, oldest = 0, time
for i, stream in ipairs(LANES) do
  here = here + call('XLEN', stream)
  local lane = i - 1
  local back = call('ZRANGEBYLEX', BACK, '[' .. lane .. '|', '(' .. lane .. '}', 'LIMIT', 0, 1)[1]
  if back then
    oldest = math.min(oldest, tonumber(string.match(back, '|(%d+)') or time))
  end
  local fresh = call('XRANGE', stream, '(' .. last_delivered(stream), '+', 'COUNT', 1)[1]
  if fresh then
    oldest = math.min(oldest, tonumber(string.match(fresh[1], '^%d+')))
  end
end
local locked, delayed = call('ZCARD', LOCKS), call('ZCARD', LATER)
-- What was abandoned for a while stays in its lane; what was sent for later is in no lane yet.
local ready = here - locked - (delayed - call('HLEN', SCHEDULED))
return {math.max(0, ready), locked, delayed, call('XLEN', DEAD), ready > 0 and time - oldest or 0}
