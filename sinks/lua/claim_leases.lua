-- Takes each lease that nobody else holds, and tells what stands at its prediction's key: who takes it late, after another
-- one is done, sees the answer instead of asking again.
--
-- KEYS  1       the ready key
--       2 3 …   for each claim: its lease, its prediction
-- ARGV  1       the epoch that the caller believes to be in force
--       2       the owner
--       3       how many ms the lease is held
--
-- Answers for each claim `1` or `0`, whether it is the owner's now, and the prediction, or nil. Refuses with NOTREADY
-- where the ready key is missing or holds another epoch.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. ARGV[1])
end

local answers = {}
for i = 2, #KEYS, 2 do
  local held = redis.call('SET', KEYS[i], ARGV[2], 'NX', 'PX', ARGV[3]) or redis.call('GET', KEYS[i]) == ARGV[2]
  answers[i - 1] = held and '1' or '0'
  answers[i] = redis.call('GET', KEYS[i + 1])
end
return answers
