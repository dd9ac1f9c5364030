"""Lua scripts that a node runs atomically: compare versions, then store.

By these scripts a node never returns to an older version, and refuses writes of clients whose
member list is outdated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from memories.cluster.client.resp import Arg, Command, encode_strings


class Script(NamedTuple):
    """A script and its digest, by which a node looks it up."""

    source: str
    sha: str

    def encoded(self, keys: int, words: int) -> bytes:
        """Return the beginning of the command that runs it; the `words` follow, the keys first."""
        return b"*%d\r\n$7\r\nEVALSHA\r\n%b" % (
            3 + words,
            encode_strings([self.sha.encode(), b"%d" % keys]),
        )

    def call(self, keys: list[bytes], *args: Arg) -> Command:
        """Return the command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def evaluated(self, keys: Sequence[bytes], *args: Arg) -> Command:
        """Return the command that runs it on a node that may not have it."""
        return ("EVAL", self.source, len(keys), *keys, *args)


def _script(source: str) -> Script:
    return Script(source, hashlib.sha1(source.encode()).hexdigest())


# KEYS: the incarnation, registers. ARGV: two accepted incarnations, then a value per register.
# Replies how many there are if it has set all of them; else a list with 1 for each that it has set,
# and the version that it already has for each other.
STORE = _script("""
local mark = redis.call('GET', KEYS[1])
if mark ~= ARGV[1] and mark ~= ARGV[2] then
  return redis.error_reply('MARK ' .. (mark or 'none'))
end
local done, stored = {}, 0
for i = 2, #KEYS do
  local value = ARGV[i + 1]
  local version = string.sub(value, 1, 32)
  local known = redis.call('GETRANGE', KEYS[i], 0, 31)
  if known < version then
    redis.call('SET', KEYS[i], value)
    done[i - 1] = 1
    stored = stored + 1
  else
    done[i - 1] = known
  end
end
if stored == #KEYS - 1 then
  return stored
end
return done
""")

# KEYS: the incarnation, registers. Replies the incarnation, and the first 64 bytes of each register
# one after the other, blanks for one that is absent; nothing if all are absent.
HEADS = _script("""
local heads, found = {}, false
for i = 2, #KEYS do
  local head = redis.call('GETRANGE', KEYS[i], 0, 63)
  if head == '' then
    head = string.rep(' ', 64)
  else
    found = true
  end
  heads[i - 1] = head
end
return {redis.call('GET', KEYS[1]), found and table.concat(heads) or ''}
""")

# KEYS: a register, and on plain servers the incarnation. ARGV: the digest of the present value, the
# new value, and two accepted incarnations.
REPLACE = _script("""
if KEYS[2] then
  local mark = redis.call('GET', KEYS[2])
  if mark ~= ARGV[3] and mark ~= ARGV[4] then
    return redis.error_reply('MARK ' .. (mark or 'none'))
  end
end
local there = redis.call('GET', KEYS[1])
if there and redis.sha1hex(there) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
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

# KEYS: the member list, the incarnation. ARGV: what both are expected to be ('' for absent), what
# they become. Replies 1 if they are that now.
ADMIT = _script("""
local list = redis.call('GET', KEYS[1]) or ''
local mark = redis.call('GET', KEYS[2]) or ''
if list == ARGV[3] and mark == ARGV[4] then
  return 1
end
if list ~= ARGV[1] or mark ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4])
return 1
""")

# For a Cluster, where the primary of the slot decides alone.
# KEYS: a register. ARGV: the value, the expected counter ('' for any, 0 for absent).
# Replies 1 if it has stored the value, and the one before had no chunks; else the result and the
# first bytes of the value before. It stores a version that is there once more, because WAIT is
# about the writes of its own connection, and the first one may have come by another.
SLOT_STORE = _script("""
local known = redis.call('GETRANGE', KEYS[1], 0, 127)
local version = string.sub(ARGV[1], 1, 32)
local there = string.sub(known, 1, 32)
local kind = string.sub(known, 33, 33)
if there ~= version then
  if ARGV[2] ~= '' then
    local counter = string.sub(known, 1, 16)
    if known == '' or kind == 't' then
      counter = '0000000000000000'
    end
    if counter ~= ARGV[2] then
      return {'conflict', known}
    end
  end
  if there > version then
    return {'older', known}
  end
end
redis.call('SET', KEYS[1], ARGV[1])
if kind == 'm' or kind == 'n' then
  return {'done', known}
end
return 1
""")

ALL = (STORE, HEADS, REPLACE, DROP, SWAP, ADMIT, SLOT_STORE)
