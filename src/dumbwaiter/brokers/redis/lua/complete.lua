-- ARGV: tokens, then as many message ids. Returns the numbers, from 1, of those that somebody else holds.
local FORGET_DONE, REMEMBER = 600 * 1000, 100000
local count = #ARGV / 2
local held = let_go({unpack(ARGV, 1, count)})
local time = now()
local done, ids, lost = {}, {}, {}
for i = 1, count do
  local stream, id = entry_of(ARGV[i])
  if stream and held[i] then
    done[stream] = done[stream] or {}
    table.insert(done[stream], id)
    ids[#ids + 1] = time + FORGET_DONE
    ids[#ids + 1] = ARGV[count + i]
  elseif stream and count_of(stream, id) then
    lost[#lost + 1] = i
  end
end
for stream, entries in pairs(done) do
  redis.pcall('XACK', stream, GROUP, unpack(entries)) -- somebody may have destroyed the group
  call('XDEL', stream, unpack(entries))
end
if #ids > 0 then
  call('ZADD', IDS, 'XX', unpack(ids))
end
call('ZREMRANGEBYSCORE', IDS, '-inf', time)
if call('ZCARD', IDS) > REMEMBER then
  local too_many = call('ZCOUNT', IDS, '-inf', time + FORGET_DONE) - REMEMBER
  if too_many > 0 then
    call('ZREMRANGEBYRANK', IDS, 0, too_many - 1)
  end
end
return lost
