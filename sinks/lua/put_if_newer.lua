-- Writes each row that is newer than the one in its place, or says why not.
--
-- KEYS  1       the ready key (a rebuild's own key while one is under way)
--       2 …     one key for each row
-- ARGV  1       the epoch that the caller believes to be in force
--       2       how many ms after its event time a row lives; -1 for ever
--       3 …     the rows' values, in the order of their keys
--
-- Answers one letter for each row: `a` applied, `s` stale (older than what is stored), `d` duplicate, `e` expired
-- (newer, but past its life by the server's own clock: not written).
--
-- Refuses, before anything is written, with NOTREADY where the ready key is missing or holds another epoch; with
-- BADFORMAT at the first row, given or stored, of another format, rows before it being written: to send them again is
-- harmless. What is stored is compared by its first 53 bytes, format and stamp; nothing behind them is looked at.
--
-- A stored head that sorts before the whole new value is older, or the same: a string sorts after its own beginning. So
-- the new value's head is cut out only where it is needed. Numbers are passed to commands as text, because Redis turns
-- Lua's doubles into text slowly: half a µs for each row.

local call, sub, byte, unpack_, floor, format = redis.call, string.sub, string.byte, struct.unpack, math.floor, string.format
local keys, argv = KEYS, ARGV

local FORMAT = 1
local HEAD_BYTES = 53

if call('GET', keys[1]) ~= argv[1] then
  return redis.error_reply('NOTREADY the ready key is missing, or holds another epoch than ' .. argv[1])
end

local lifetime = tonumber(argv[2])
local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)

local answers = {}
for i = 2, #keys do
  local key, value = keys[i], argv[i + 1]
  local head = call('GETRANGE', key, '0', '52')
  if byte(value) ~= FORMAT or (head ~= '' and (byte(head) ~= FORMAT or #head ~= HEAD_BYTES)) then
    return redis.error_reply('BADFORMAT ' .. key)
  end
  local answer
  if head ~= '' and head >= value then
    answer = 's'
  elseif head == sub(value, 1, HEAD_BYTES) then
    answer = 'd'
  elseif lifetime < 0 then
    call('SET', key, value)
    answer = 'a'
  else
    -- Event time in µs as two halves, the top bit flipped; a double holds their sum exactly up to 2^53, the year 2255.
    local high, low = unpack_('>I4I4', value, 2)
    local expires = floor(((high - 2147483648) * 4294967296 + low) / 1000) + lifetime
    if expires <= now then
      answer = 'e'
    else
      call('SET', key, value, 'PXAT', format('%d', expires))
      answer = 'a'
    end
  end
  answers[i - 1] = answer
end
return table.concat(answers)
