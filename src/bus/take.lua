-- Takes the lease, and goes on with a stream or begins one. All or nothing.
-- KEYS: pointer, stream, [the stream that was left for it]
-- ARGV: writer, lease (ms), what `current` is ('' for none), n of the stream, starts, network, from, n of the left one
--       ('' for none), seconds until that is gone, entries that are kept (0: all)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'current', 'writer', 'expires')
local left = (tonumber(found[3] or '0') or 0) - now
-- More is left than a lease lasts: Redis's clock was set back.
if found[2] and found[2] ~= ARGV[1] and left > 0 and left <= tonumber(ARGV[2]) then
  return {'held', found[2], string.format('%.0f', left)}
end
if (found[1] or '') ~= ARGV[3] then return {'changed'} end
if ARGV[3] ~= ARGV[4] then
  redis.call('UNLINK', KEYS[2])
  if KEYS[3] then redis.call('EXPIRE', KEYS[3], ARGV[9]) end
elseif ARGV[10] ~= '0' and redis.call('XLEN', KEYS[2]) > tonumber(ARGV[10]) then
  -- A full Redis lets a script go on once it has written: what gives memory back comes first.
  redis.call('XTRIM', KEYS[2], 'MAXLEN', '~', ARGV[10])
end
local function take()
  return redis.pcall('HSET', KEYS[1], 'current', ARGV[4], 'starts', ARGV[5], 'network', ARGV[6], 'from', ARGV[7],
    'left', ARGV[8], 'writer', ARGV[1], 'expires', string.format('%.0f', now + ARGV[2]))
end
local taken = take()
if type(taken) == 'table' and taken.err and string.find(taken.err, 'OOM', 1, true) and KEYS[3]
  and redis.call('UNLINK', KEYS[3]) == 1 then
  taken = take()
end
if type(taken) == 'table' and taken.err then return taken end
return {'done'}
