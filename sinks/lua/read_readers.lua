-- Tells which predictions read some rows through aliases: the entities that are listed there, those whose predictions
-- live longest first. What has expired is left out.
--
-- KEYS  1       the ready key
--       2       what is never there: to delete it makes this a write, which a primary that was demoted refuses. Its
--               lists may be behind, and whoever is missing there would not be refreshed
--       3 …     for each row, where its readers stand
-- ARGV  1       the epoch that the caller believes to be in force
--       2       how many of each are wanted
--       3       how many altogether: 10,000 take a millisecond or two, in which the server does nothing else
--
-- Answers how many more there are, and then for each row an array of entity keys. Refuses with NOTREADY where the ready
-- key is missing or holds another epoch.

local call = redis.call

if call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. ARGV[1])
end

call('DEL', KEYS[2])
local time = call('TIME')
local later = '(' .. string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local each, room = tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {0}
for i = 3, #KEYS do
  local some = call('ZRANGE', KEYS[i], '+inf', later, 'BYSCORE', 'REV', 'LIMIT', 0, math.min(each, room))
  room = room - #some
  answers[i - 1] = some
  answers[1] = answers[1] + call('ZCOUNT', KEYS[i], later, '+inf') - #some
end
return answers
