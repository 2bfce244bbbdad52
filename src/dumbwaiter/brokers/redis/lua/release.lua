-- ARGV: what all tags of one broker object begin with. Hands back, uncounted, all that it holds. Returns how many.
local mine = '|' .. ARGV[1]
local released = 0
for _, token in ipairs(call('ZRANGE', LOCKS, 0, -1)) do
  if string.find(token, mine, 1, true) then
    local stream, id = entry_of(token)
    call('ZREM', LOCKS, token)
    set_count(stream, id, math.max(0, (count_of(stream, id) or 1) - 1))
    call('ZADD', BACK, 0, unheld(token))
    released = released + 1
  end
end
ring(released)
return released
