-- ARGV: lock in ms; tokens. Returns the numbers, from 1, of those whose lock ran out or moved on.
local tokens = {unpack(ARGV, 2)}
local ends = call('ZMSCORE', LOCKS, unpack(tokens))
local time = now()
local fresh, lost = {}, {}
for i, token in ipairs(tokens) do
  if ends[i] and tonumber(ends[i]) > time then
    fresh[#fresh + 1] = time + ARGV[1]
    fresh[#fresh + 1] = token
  else
    lost[#lost + 1] = i
  end
end
if #fresh > 0 then
  call('ZREM', LOCKS, '') -- frees nothing, but lets the next write pass where memory is full: locks must not run out
  call('ZADD', LOCKS, unpack(fresh))
end
return lost
