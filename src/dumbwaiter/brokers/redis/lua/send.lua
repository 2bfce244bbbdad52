-- ARGV: delay in ms; for each message its lane, its id, how many strings its fields are, and these.
-- Returns -1 when there is no such queue, else how many of them are new.
if is_missing() then
  return -1
end
local time, delay = now(), tonumber(ARGV[1])
local FORGET_WAITING = 7 * 24 * 3600 * 1000
local sent, i = 0, 2
while i <= #ARGV do
  local lane, id, last = ARGV[i], ARGV[i + 1], i + 2 + ARGV[i + 2]
  local is_new = call('ZADD', IDS, 'NX', time + FORGET_WAITING, id) == 1
  if not is_new and tonumber(call('ZSCORE', IDS, id)) <= time then
    call('ZADD', IDS, time + FORGET_WAITING, id)
    is_new = true
  end
  if is_new then
    sent = sent + 1
    if delay > 0 then
      call('HSET', SCHEDULED, id, cmsgpack.pack({lane, unpack(ARGV, i + 3, last)}))
      call('ZADD', LATER, time + delay, 'd|' .. id)
    else
      call('XADD', LANES[lane + 1], '*', unpack(ARGV, i + 3, last))
    end
  end
  i = last + 1
end
if delay > 0 and sent > 0 then
  ring(1)
end
return sent
