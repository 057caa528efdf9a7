"""The scripts that count in Redis: the same merged log as `windows`, each an atomic step on the store's own clock.

Names of one key, all with its id in braces, so that a cluster keeps them together: `minute` is the log (packed, gone a
minute after its last entry), `leases` a sorted set of the reservations held, by when they expire, `entries` the log
entry that each lease was charged to, `month` a number. A lease is forgotten `KEEP_MS` after it expired; until then it
can be settled, and a lease that was settled before it was reserved (its reservation was given up, unanswered) is void:
a mark in its place, its id with a minus before it, says so. A lease that was refreshed leaves the mark as well, for the
refreshing may be told once more, and must not bring it back.
"""

from __future__ import annotations

from urllib.parse import quote

KEEP_MS = 600_000
"""How long after its lease expired, or before its reservation arrives, a settlement still has its effect."""

_MONTH_MS = 40 * 24 * 3600 * 1000

_COMMON = """
local WINDOW, MERGE = 60000, 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function load(name)
  local raw = redis.call('GET', name)
  local log = {requests = 0, tokens = 0, entries = {}}
  for _, entry in ipairs(raw and cmsgpack.unpack(raw) or {}) do
    entry[2] = math.min(entry[2], now)  -- the clock was put back
    if entry[2] + WINDOW > now then
      table.insert(log.entries, entry)
      log.requests = log.requests + entry[3]
      log.tokens = log.tokens + entry[4]
    end
  end
  return log
end

local function charge(log, requests, tokens)
  local entry = log.entries[#log.entries]
  if not entry or now - entry[1] >= MERGE or now < entry[1] then
    entry = {now, now, 0, 0}
    table.insert(log.entries, entry)
  end
  entry[2] = now
  entry[3] = entry[3] + requests
  entry[4] = entry[4] + tokens
  log.requests = log.requests + requests
  log.tokens = log.tokens + tokens
  return entry[1]
end

local function save(name, log)
  redis.call('SET', name, cmsgpack.pack(log.entries), 'PX', WINDOW + MERGE)
end

local function spend(name, tokens)
  if redis.call('INCRBY', name, tokens) == tokens then
    redis.call('PEXPIRE', name, MONTH_MS)
  end
end
""".replace("MONTH_MS", str(_MONTH_MS))

RESERVE = (
    _COMMON
    + """
local id, tokens = ARGV[1], tonumber(ARGV[2])
local rpm, tpm, concurrent, monthly = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local lease_ms = tonumber(ARGV[7])

for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - KEEP_MS, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[2], dead)
  redis.call('HDEL', KEYS[3], dead)
end

local log = load(KEYS[1])
local held = redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf')
local month = monthly > 0 and tonumber(redis.call('GET', KEYS[4]) or 0) or 0
local why, wait = '', 0
if redis.call('ZSCORE', KEYS[2], '-' .. id) then
  why = 'void'
elseif monthly > 0 and month + tokens > monthly then
  why = 'month'
elseif concurrent > 0 and held >= concurrent then
  why = 'concurrent'
else
  local requests_over = rpm > 0 and log.requests + 1 - rpm or 0
  local tokens_over = tpm > 0 and log.tokens + tokens - tpm or 0
  if requests_over > 0 or tokens_over > 0 then
    why = requests_over > 0 and 'requests' or 'tokens'
    for _, entry in ipairs(log.entries) do
      if requests_over <= 0 and tokens_over <= 0 then break end
      requests_over = requests_over - entry[3]
      tokens_over = tokens_over - entry[4]
      wait = entry[2] + WINDOW - now
    end
  end
end
if why == '' then
  local first = charge(log, 1, tokens)
  save(KEYS[1], log)
  redis.call('ZADD', KEYS[2], now + lease_ms, id)
  redis.call('HSET', KEYS[3], id, string.format('%d', first))
  redis.call('PEXPIRE', KEYS[2], lease_ms + KEEP_MS)
  redis.call('PEXPIRE', KEYS[3], lease_ms + KEEP_MS)
  held = held + 1
  if monthly > 0 then
    spend(KEYS[4], tokens)
    month = month + tokens
  end
end
local requests_reset, tokens_reset = 0, 0
for _, entry in ipairs(log.entries) do
  if entry[3] > 0 then requests_reset = entry[2] + WINDOW - now end
  if entry[4] > 0 then tokens_reset = entry[2] + WINDOW - now end
end
return {why, wait, log.requests, requests_reset, log.tokens, tokens_reset, held, month}
""".replace("KEEP_MS", str(KEEP_MS))
)
"""KEYS minute, leases, entries, month; ARGV lease, tokens, the four bounds (0 is none), the lease's milliseconds.

Returns why it was refused (empty: it was not), the milliseconds to wait, and a `Standing` in milliseconds.
"""

SETTLE = (
    _COMMON
    + """
local id, reserved, used, monthly = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local held = redis.call('ZREM', KEYS[2], id) == 1
if not held or ARGV[5] == '1' then
  redis.call('ZADD', KEYS[2], now, '-' .. id)
  if redis.call('PTTL', KEYS[2]) < KEEP_MS then
    redis.call('PEXPIRE', KEYS[2], KEEP_MS)
  end
end
if not held then
  return 0
end
local first = tonumber(redis.call('HGET', KEYS[3], id) or -1)
redis.call('HDEL', KEYS[3], id)
local change = math.max(used, 0) - reserved
if change > 0 then
  local log = load(KEYS[1])
  charge(log, 0, change)
  save(KEYS[1], log)
elseif first >= 0 then
  local log = load(KEYS[1])
  for _, entry in ipairs(log.entries) do
    if entry[1] == first then
      entry[4] = entry[4] + change
      if used < 0 then entry[3] = entry[3] - 1 end
      save(KEYS[1], log)
    end
  end
end
if monthly > 0 and (change > 0 or first >= 0) then
  spend(KEYS[4], change)
end
return 1
""".replace("KEEP_MS", str(KEEP_MS))
)
"""KEYS as before; ARGV lease, tokens reserved, tokens used (-1: it was not served), 1 where the month counts, 1 for a
lease that was refreshed."""

REFRESH = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease_ms = tonumber(ARGV[1])
for number = 2, #ARGV do
  if not redis.call('ZSCORE', KEYS[1], '-' .. ARGV[number]) then
    redis.call('ZADD', KEYS[1], now + lease_ms, ARGV[number])
  end
end
for _, name in ipairs(KEYS) do
  redis.call('PEXPIRE', name, lease_ms + KEEP_MS)
end
return 1
""".replace("KEEP_MS", str(KEEP_MS))
"""KEYS leases, entries; ARGV the lease's milliseconds, leases that are still held."""


def names(prefix: str, key_id: str, month: str) -> tuple[str, str, str, str]:
    """What one key's minute, leases, entries and month are called in Redis."""
    base = f"{prefix}:limits:{{{quote(key_id, safe='')}}}"
    return f"{base}:minute", f"{base}:leases", f"{base}:entries", f"{base}:month:{month}"
