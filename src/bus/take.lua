-- Takes the lease, and goes on with a stream or begins one. All or nothing.
-- KEYS: pointer, stream, [the stream that is left for it]
-- ARGV: writer, lease (ms), what `current` is ('' for none), n of the stream, starts, network, seconds until the left one is gone
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'current', 'writer', 'expires')
local left = (tonumber(found[3] or '0') or 0) - now
if found[2] and found[2] ~= ARGV[1] and left > 0 then
  return {'held', found[2], string.format('%.0f', left)}
end
if (found[1] or '') ~= ARGV[3] then return {'changed'} end
if ARGV[3] ~= ARGV[4] then
  redis.call('UNLINK', KEYS[2])
  if KEYS[3] then redis.call('EXPIRE', KEYS[3], ARGV[7]) end
end
redis.call('HSET', KEYS[1], 'current', ARGV[4], 'starts', ARGV[5], 'network', ARGV[6],
  'writer', ARGV[1], 'expires', string.format('%.0f', now + ARGV[2]))
return {'done'}
