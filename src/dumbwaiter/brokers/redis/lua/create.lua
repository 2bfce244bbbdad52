-- ARGV: nothing. Entries that were there before the queue was are its first messages.
--
-- The messages of a lane that is made anew are gone, so their ids must not keep those that are sent again from coming
-- in. Those of the other lanes may come twice then, which is better than not at all.
if call('EXISTS', HIGH, NORMAL, LOW) < 3 then
  call('DEL', IDS)
end
for _, stream in ipairs({HIGH, NORMAL, LOW, BELL}) do
  for _, group in ipairs({GROUP, WAKE}) do
    local made = redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
      return made
    end
  end
end
return 1
