-- Gives the lease back, if it is ours.
-- KEYS: pointer; ARGV: writer
if redis.call('HGET', KEYS[1], 'writer') == ARGV[1] then redis.call('HSET', KEYS[1], 'expires', '0') end
return {'done'}
