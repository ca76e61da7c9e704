-- The last step of a rebuild: its epoch comes into force.
--
-- KEYS  1  the rebuild's key    2  the ready key
-- ARGV  1  the rebuild's epoch
--
-- Refuses with NOTREADY where the rebuild's key is missing or holds another epoch: the store has forgotten what was
-- written, or another rebuild has begun. Harmless to repeat.

if redis.call('GET', KEYS[2]) == ARGV[1] then
  return redis.status_reply('OK')
end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTREADY the rebuild ' .. ARGV[1] .. ' is no longer under way')
end
redis.call('RENAME', KEYS[1], KEYS[2])
return redis.status_reply('OK')
