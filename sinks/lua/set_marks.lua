-- Creates applied marks where there are none, or where those that are there belong to another epoch.
--
-- KEYS  1       the ready key (a rebuild's own key while one is under way)
--       2 …     the marks
-- ARGV  1       the epoch that the caller believes to be in force
--       2 …     for each mark, the position to create it at, 20 digits
--
-- Refuses with NOTREADY where the ready key is missing or holds another epoch.

local epoch = ARGV[1]
if redis.call('GET', KEYS[1]) ~= epoch then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. epoch)
end

for i = 2, #KEYS do
  local mark = redis.call('GET', KEYS[i])
  if not mark or string.sub(mark, 22) ~= epoch then
    redis.call('SET', KEYS[i], ARGV[i] .. ':' .. epoch)
  end
end
return redis.status_reply('OK')
