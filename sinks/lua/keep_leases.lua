-- Holds leases for longer, or gives them up: those that are the owner's.
--
-- KEYS  1       the ready key
--       2 …     the leases
-- ARGV  1       the epoch that the caller believes to be in force
--       2       the owner
--       3       for how many ms from now; 0 gives them up
--
-- Answers one letter for each lease: `k` it was the owner's, `l` it is lost. Refuses with NOTREADY where the ready key is
-- missing or holds another epoch.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. ARGV[1])
end

local answers = {}
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) ~= ARGV[2] then
    answers[i - 1] = 'l'
  else
    answers[i - 1] = 'k'
    if ARGV[3] == '0' then
      redis.call('DEL', KEYS[i])
    else
      redis.call('SET', KEYS[i], ARGV[2], 'PX', ARGV[3])
    end
  end
end
return table.concat(answers)
