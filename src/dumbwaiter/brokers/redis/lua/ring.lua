-- ARGV: nothing. Passes a wake-up on that found nobody waiting any more.
if not is_missing() then
  ring(1)
end
