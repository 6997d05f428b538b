-- Gives the lease back, if it is ours. A full Redis lets a field be deleted.
-- KEYS: pointer; ARGV: writer
if redis.call('HGET', KEYS[1], 'writer') == ARGV[1] then redis.call('HDEL', KEYS[1], 'expires') end
return {'done'}
