"""The engine: where every value is, who makes room for it, and how it gets from tier to tier.

It knows no medium, no policy and no codec by name: `core.assembly` hands them in. Read `hierarchy`
first (put, get, move), then `mover` (one move), then `tier` (one tier).
"""
