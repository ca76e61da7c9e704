-- Merges predictions with what is stored: the newest outputs, and the newest failure if it is newer than those. And lists
-- each, for as long as it lives, with the readers of the rows that it reads through aliases.
--
-- KEYS  1       the ready key
--       2 …     for each record: its key, and then where the readers of each such row stand
-- ARGV  1       the epoch that the caller believes to be in force
--       2       how many ms a record lives from when the inputs of its outputs were read (or of its failure, without any)
--       3       how many such rows each record has
--       4       how many readers a row has at most: those leave it whose predictions expire first
--       5 …     for each record: itself, and the key of its entity
--
-- A record is a format byte, the length of its outputs' part (4 bytes, big-endian), that part, and the failure's. Each
-- part begins with the instant at which its inputs were read, big-endian: so the greater part, as bytes, is the newer.
-- But a part whose inputs were read more than a second from now, by the server's own clock, was read by the clock of another
-- server, before this one took over: that is older than any other part, however small its instant.
-- `merged` in stillwell/layout/prediction.py is the same rule. Answers one letter for each record: `a` what is stored has
-- changed, `s` it has not, `e` it would be past its life by the server's own clock, and is not written; then another one
-- for each: `n` it is newly among the readers of a row, `-` it is not; and how many others are no longer.
--
-- Refuses with NOTREADY where the ready key is missing or holds another epoch, with BADFORMAT over what is no record.

local call, sub, byte, read = redis.call, string.sub, string.byte, struct.unpack
local AHEAD_US = 1000000

if call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. ARGV[1])
end

local function parts(record)
  if #record < 5 or byte(record) ~= 1 then
    return nil
  end
  local last = 5 + read('>I4', record, 2)
  if last > #record then
    return nil
  end
  return sub(record, 6, last), sub(record, last + 1)
end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept, width, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local dropped = 0
local last = time[1] * 1000000 + time[2] + AHEAD_US
local limit = struct.pack('>I4I4', math.floor(last / 4294967296), last % 4294967296)

-- Whether a string sorts before another by its bytes. Lua's own `<` goes by the locale that the server was started in
-- (LC_COLLATE), where bytes have another order than their own.
local function precedes(one, other)
  for i = 1, math.min(#one, #other) do
    local of_one, of_other = byte(one, i), byte(other, i)
    if of_one ~= of_other then
      return of_one < of_other
    end
  end
  return #one < #other
end

-- The instant of a part, as bytes that sort.
local function instant(part)
  local at = sub(part, 1, 8)
  return precedes(limit, at) and '' or at
end

local function newer(one, other)
  local of_one, of_other = instant(one), instant(other)
  if of_one == of_other then
    return precedes(other, one) and one or other
  end
  return precedes(of_other, of_one) and one or other
end

local function is_outdated(failure, outputs)
  local of_failure, of_outputs = instant(failure), instant(outputs)
  if of_failure == of_outputs then
    return not precedes(sub(outputs, 1, 8), sub(failure, 1, 8))
  end
  return precedes(of_failure, of_outputs)
end

-- Whether a reader is new there.
local function list(place, expires, entity)
  local new = call('ZADD', place, expires, entity) == 1
  call('ZREMRANGEBYSCORE', place, '-inf', string.format('%d', now))
  dropped = dropped + call('ZREMRANGEBYRANK', place, 0, -most - 1)
  local last = call('ZRANGE', place, -1, -1, 'WITHSCORES')
  if last[2] then
    call('PEXPIREAT', place, last[2])
  end
  return new
end

local answers, listed = {}, {}
for i = 2, #KEYS, 1 + width do
  local number = (i - 2) / (1 + width)
  local given, entity, stored = ARGV[5 + 2 * number], ARGV[6 + 2 * number], call('GET', KEYS[i])
  local outputs, failure = parts(given)
  if not outputs then
    return redis.error_reply('BADFORMAT given for ' .. KEYS[i])
  end
  if stored then
    local old_outputs, old_failure = parts(stored)
    if not old_outputs then
      return redis.error_reply('BADFORMAT stored at ' .. KEYS[i])
    end
    outputs = newer(old_outputs, outputs)
    failure = newer(old_failure, failure)
  end
  if is_outdated(failure, outputs) then
    failure = ''
  end
  local merged = struct.pack('>BI4', 1, #outputs) .. outputs .. failure
  local high, low = read('>I4I4', outputs ~= '' and outputs or failure)
  local expires = math.floor((high * 4294967296 + low) / 1000) + kept
  local at = string.format('%d', expires)
  local answer, new = 's', false
  if merged ~= stored then
    answer = expires <= now and 'e' or 'a'
    if answer == 'a' then
      call('SET', KEYS[i], merged, 'PXAT', at)
    end
  end
  for place = i + 1, answer == 'e' and i or i + width do
    new = list(KEYS[place], at, entity) or new
  end
  answers[number + 1], listed[number + 1] = answer, new and 'n' or '-'
end
return {table.concat(answers), table.concat(listed), dropped}
