-- ARGV: delay in ms, 1 if it counts; tokens, then as many delivery counts. Returns the numbers of the lost ones.
local delay, is_counted = tonumber(ARGV[1]), ARGV[2] == '1'
local count = (#ARGV - 2) / 2
local tokens = {unpack(ARGV, 3, count + 2)}
local held = let_go(tokens)
local until_ = now() + delay
local returned, lost = 0, {}
for i, token in ipairs(tokens) do
  local stream, id = entry_of(token)
  if stream and held[i] then
    if not is_counted then
      set_count(stream, id, math.max(0, ARGV[count + 2 + i] - 1))
    end
    if delay > 0 then
      call('ZADD', LATER, until_, unheld(token))
    else
      call('ZADD', BACK, 0, unheld(token))
    end
    returned = returned + 1
  else
    lost[#lost + 1] = i
  end
end
ring(delay > 0 and math.min(returned, 1) or returned)
return lost
