-- Appends entries that follow the last one, and renews the lease. Without entries it looks and renews.
-- KEYS: pointer, stream, [the stream that was left for it]
-- ARGV: writer, lease (ms), n of the stream, id of its last entry ('' for none), entries that are kept (0: all),
--       then for each entry: id, after, event, subject, cursor, data
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'current', 'writer', 'expires')
local left = (tonumber(found[3] or '0') or 0) - now
-- More is left than a lease lasts: Redis's clock was set back.
if found[2] and found[2] ~= ARGV[1] and left > 0 and left <= tonumber(ARGV[2]) then
  return {'held', found[2], string.format('%.0f', left)}
end
if found[2] ~= ARGV[1] or found[1] ~= ARGV[3] then return {'changed'} end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if (last[1] and last[1][1] or '') ~= ARGV[4] then return {'changed'} end
-- A full Redis lets a script go on once it has written: what gives memory back comes first.
if ARGV[5] ~= '0' and redis.call('XLEN', KEYS[2]) > tonumber(ARGV[5]) then
  redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[5])
end
local expires = string.format('%.0f', now + ARGV[2])
local renewed = redis.pcall('HSET', KEYS[1], 'expires', expires)
if type(renewed) == 'table' and renewed.err then
  local is_full = string.find(renewed.err, 'OOM', 1, true)
  if not (is_full and KEYS[3] and redis.call('UNLINK', KEYS[3]) == 1) then return renewed end
  redis.call('HSET', KEYS[1], 'expires', expires)
end
for i = 6, #ARGV, 6 do
  redis.call('XADD', KEYS[2], ARGV[i], 'after', ARGV[i + 1], 'event', ARGV[i + 2], 'subject', ARGV[i + 3],
    'cursor', ARGV[i + 4], 'data', ARGV[i + 5])
end
if #ARGV > 5 and ARGV[5] ~= '0' then redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[5]) end
return {'done'}
