-- ARGV: 'redrive' or 'purge'; then keys, or with ALL: the last key that is meant, or '' for the newest there is.
-- Returns -1 when there is no such queue, else how many were moved and, with ALL, the last key that is meant.
if is_missing() then
  return -1
end
local ALL = '*'
local verb, entries, last = ARGV[1], {}, ''
if ARGV[2] == ALL then
  last = ARGV[3]
  if last == '' then
    local newest = call('XREVRANGE', DEAD, '+', '-', 'COUNT', 1)[1]
    last = newest and newest[1] or '0-0'
  end
  entries = call('XRANGE', DEAD, '-', last, 'COUNT', 100)
else
  for i = 2, #ARGV do
    entries[#entries + 1] = call('XRANGE', DEAD, ARGV[i], ARGV[i])[1]
  end
end

local function forget_id_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'ce-id' then
      call('ZREM', IDS, fields[i + 1])
    end
  end
end

for _, entry in ipairs(entries) do
  local key, fields = entry[1], entry[2]
  if verb == 'redrive' then
    local lane = string.match(call('HGET', WHY, key) or '', '^[012]') or 1
    call('XADD', LANES[lane + 1], '*', unpack(bounded(fields)))
  else
    forget_id_of(fields)
  end
  call('XDEL', DEAD, key)
  call('HDEL', WHY, key)
end
return {#entries, last}
