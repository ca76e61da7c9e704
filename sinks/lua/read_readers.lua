-- Tells which predictions read some rows through aliases: the entities that are listed there, those whose predictions
-- live longest first. What has expired is left out.
--
-- KEYS  1       the ready key
--       2       what is never there: to delete it makes this a write, which a primary that was demoted refuses. Its
--               lists may be behind, and whoever is missing there would not be refreshed
--       3 …     for each row, where its readers stand
-- ARGV  1       the epoch that the caller believes to be in force
--       2       how many of each are wanted
--       3       how many altogether
--       4       how many of the first row are known already
--
-- Answers for each row how many readers it has, and an array of their entities' keys. Refuses with NOTREADY where the
-- ready key is missing or holds another epoch.

local call = redis.call

if call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. ARGV[1])
end

call('DEL', KEYS[2])
local time = call('TIME')
local later = '(' .. string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local each, room, known = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local answers = {}
for i = 3, #KEYS do
  local wanted = math.max(math.min(each - known, room), 0)
  local some = call('ZRANGE', KEYS[i], '+inf', later, 'BYSCORE', 'REV', 'LIMIT', known, wanted)
  room, known = room - #some, 0
  answers[i - 2] = {call('ZCOUNT', KEYS[i], later, '+inf'), some}
end
return answers
