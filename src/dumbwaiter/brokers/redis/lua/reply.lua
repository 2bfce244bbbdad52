-- KEYS: the numbers of the open inboxes of one broker object, the stream of its replies. ARGV: number of the inbox, ms
-- for which the stream outlives its last reply; for each reply how many strings its fields are, and these.
-- Returns 0 when nobody reads that inbox any more.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  return 0
end
-- A write that needs no memory comes first, so that a server whose memory is full takes replies: they soon go away.
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local i = 3
while i <= #ARGV do
  local last = i + ARGV[i]
  redis.call('XADD', KEYS[2], '*', 'inbox', ARGV[1], unpack(ARGV, i + 1, last))
  i = last + 1
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
