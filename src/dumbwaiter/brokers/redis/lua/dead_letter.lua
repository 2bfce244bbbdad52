-- ARGV: tokens, then as many reasons, each a JSON object. Returns the numbers, from 1, of the lost ones.
local count = #ARGV / 2
local lost = {}
call('ZREM', LOCKS, '') -- frees nothing, but lets the next write pass where memory is full
for i = 1, count do
  local token = ARGV[i]
  local stream, id = entry_of(token)
  if stream and (call('ZSCORE', LOCKS, token) or call('ZSCORE', BACK, token)) then
    local entry = call('XRANGE', stream, id, id)[1]
    if entry then
      local key = call('XADD', DEAD, '*', unpack(bounded(entry[2])))
      call('HSET', WHY, key, string.sub(token, 1, 1) .. ARGV[count + i])
    end
    redis.pcall('XACK', stream, GROUP, id) -- somebody may have destroyed the group
    call('XDEL', stream, id)
    -- Last: what fails before it leaves the message locked, and it comes again.
    let_go({token})
  else
    lost[#lost + 1] = i
  end
end
return lost
