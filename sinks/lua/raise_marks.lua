-- Raises applied marks to the end of what was written.
--
-- KEYS  1       the ready key (a rebuild's own key while one is under way)
--       2 …     the marks
-- ARGV  1       the epoch that the caller believes to be in force
--       2 3 …   for each mark, start and end of the offsets whose rows are now stored
--
-- A mark holds `<position, 20 digits>:<epoch>`; positions are compared as text, for Lua's numbers end at 2^53, and digits
-- have their order in every locale of the server's. It is raised to `end` only if its epoch is the caller's and
-- start <= position < end: so a gap is never closed over, and who wakes up late changes nothing. Answers where each mark
-- stands now, `` for one that is absent or of another epoch.
-- Refuses with NOTREADY where the ready key is missing or holds another epoch.

local epoch = ARGV[1]
if redis.call('GET', KEYS[1]) ~= epoch then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. epoch)
end

local positions = {}
for i = 2, #KEYS do
  local mark = redis.call('GET', KEYS[i])
  local position = ''
  if mark and string.sub(mark, 22) == epoch then
    position = string.sub(mark, 1, 20)
    local start, stop = ARGV[2 * i - 2], ARGV[2 * i - 1]
    if start <= position and position < stop then
      redis.call('SET', KEYS[i], stop .. ':' .. epoch)
      position = stop
    end
  end
  positions[i - 1] = position
end
return positions
