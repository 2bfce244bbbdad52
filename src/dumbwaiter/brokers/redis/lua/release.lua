-- ARGV: what all tags of one broker object begin with, 1 if its deliveries count. Hands back all that it holds. Returns
-- how many.
local mine, is_counted = '|' .. ARGV[1], ARGV[2] == '1'
local released = 0
for _, token in ipairs(call('ZRANGE', LOCKS, 0, -1)) do
  if string.find(token, mine, 1, true) then
    local stream, id = entry_of(token)
    call('ZREM', LOCKS, token)
    if not is_counted and count_of(stream, id) then
      set_count(stream, id, math.max(0, (count_of(stream, id) or 1) - 1))
    end
    call('ZADD', BACK, 0, unheld(token))
    released = released + 1
  end
end
ring(released)
return released
