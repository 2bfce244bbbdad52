-- ARGV: tokens, then as many reasons, each a JSON object. Returns the numbers, from 1, of the lost ones.
local count = #ARGV / 2
local tokens = {unpack(ARGV, 1, count)}
local held = let_go(tokens)
local lost = {}
for i, token in ipairs(tokens) do
  local stream, id = entry_of(token)
  if stream and held[i] then
    local entry = call('XRANGE', stream, id, id)[1]
    if entry then
      local key = call('XADD', DEAD, '*', unpack(entry[2]))
      call('HSET', WHY, key, string.sub(token, 1, 1) .. ARGV[count + i])
    end
    call('XACK', stream, GROUP, id)
    call('XDEL', stream, id)
  else
    lost[#lost + 1] = i
  end
end
return lost
