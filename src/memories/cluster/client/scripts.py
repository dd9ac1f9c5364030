"""What a node does in one step: the few lines of Lua that make a register out of a string.

Not the protocol, which lives in the clients. The one idea: a node never goes back to an older
version, and takes nothing from a client that has an outdated idea of the cluster.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from memories.cluster.client.resp import Arg, Command


class Script(NamedTuple):
    """A script and the name under which a node keeps it."""

    source: str
    sha: str

    def call(self, keys: list[bytes], *args: Arg) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


def _script(source: str) -> Script:
    return Script(source, hashlib.sha1(source.encode()).hexdigest())


# KEYS: the node's mark, registers. ARGV: two marks that will do, then one value per register.
# Replies 1 for each register that was set, else the version that is there already.
STORE = _script("""
local mark = redis.call('GET', KEYS[1])
if mark ~= ARGV[1] and mark ~= ARGV[2] then
  return redis.error_reply('MARK ' .. (mark or 'none'))
end
local done = {}
for i = 2, #KEYS do
  local value = ARGV[i + 1]
  local version = string.sub(value, 1, 32)
  local known = redis.call('GETRANGE', KEYS[i], 0, 31)
  if known < version then
    redis.call('SET', KEYS[i], value)
    done[i - 1] = 1
  else
    done[i - 1] = known
  end
end
return done
""")

# KEYS: the mark, a register. ARGV: two marks, the digest of what is there, the value instead.
REPLACE = _script("""
local mark = redis.call('GET', KEYS[1])
if mark ~= ARGV[1] and mark ~= ARGV[2] then
  return redis.error_reply('MARK ' .. (mark or 'none'))
end
local there = redis.call('GET', KEYS[2])
if there and redis.sha1hex(there) == ARGV[3] then
  redis.call('SET', KEYS[2], ARGV[4])
  return 1
end
return 0
""")

# KEYS: a register. ARGV: the version that may go.
DROP = _script("""
if redis.call('GETRANGE', KEYS[1], 0, 31) == ARGV[1] then
  return redis.call('UNLINK', KEYS[1])
end
return 0
""")

# KEYS: a string. ARGV: what it must be ('' for absent), what it becomes.
SWAP = _script("""
local there = redis.call('GET', KEYS[1]) or ''
if there == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return 1
end
return there
""")

# For a Cluster, where the slot's primary decides alone.
# KEYS: a register. ARGV: the value, the counter it must be at ('' for any, 0 for absent).
# Replies what became of it and the first bytes of what was there before.
SLOT_STORE = _script("""
local known = redis.call('GETRANGE', KEYS[1], 0, 127)
local version = string.sub(ARGV[1], 1, 32)
local there = string.sub(known, 1, 32)
if there == version then
  return {'done', known}
end
if ARGV[2] ~= '' then
  local counter = string.sub(known, 1, 16)
  if known == '' or string.sub(known, 33, 33) == 't' then
    counter = '0000000000000000'
  end
  if counter ~= ARGV[2] then
    return {'conflict', known}
  end
end
if there >= version then
  return {'older', known}
end
redis.call('SET', KEYS[1], ARGV[1])
return {'done', known}
""")

# KEYS: a string. ARGV: the digest of what is there, the value instead.
SLOT_REPLACE = _script("""
local there = redis.call('GET', KEYS[1])
if there and redis.sha1hex(there) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return 1
end
return 0
""")

ALL = (STORE, REPLACE, DROP, SWAP, SLOT_STORE, SLOT_REPLACE)
