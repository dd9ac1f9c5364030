"""Lua scripts that a node runs atomically: compare versions, then store.

By these scripts a node never returns to an older version, and refuses writes of clients whose
member list is outdated.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from memories.cluster.client.resp import Arg, Command


class Script(NamedTuple):
    """A script and its digest, by which a node looks it up."""

    source: str
    sha: str

    def call(self, keys: list[bytes], *args: Arg) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


def _script(source: str) -> Script:
    return Script(source, hashlib.sha1(source.encode()).hexdigest())


# KEYS: the incarnation, registers. ARGV: two accepted incarnations, then a value per register.
# Replies 1 for each register that was set, else the version that the node already has.
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

# KEYS: the incarnation, a register. ARGV: two accepted incarnations, the digest of the present
# value, the new value.
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

# KEYS: a register. ARGV: the version that may be removed.
DROP = _script("""
if redis.call('GETRANGE', KEYS[1], 0, 31) == ARGV[1] then
  return redis.call('UNLINK', KEYS[1])
end
return 0
""")

# KEYS: a string. ARGV: its expected value ('' for absent), its new value.
SWAP = _script("""
local there = redis.call('GET', KEYS[1]) or ''
if there == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return 1
end
return there
""")

# For a Cluster, where the primary of the slot decides alone.
# KEYS: a register. ARGV: the value, the expected counter ('' for any, 0 for absent).
# Replies the result and the first bytes of the value before.
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

# KEYS: a string. ARGV: the digest of the present value, the new value.
SLOT_REPLACE = _script("""
local there = redis.call('GET', KEYS[1])
if there and redis.sha1hex(there) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return 1
end
return 0
""")

ALL = (STORE, REPLACE, DROP, SWAP, SLOT_STORE, SLOT_REPLACE)
