"""The engine: where every value is, what makes room for it, and how it moves from tier to tier.

Policies and codecs are passed in by `core.wiring`. Read `hierarchy` first (put, read, move), then
`mover` (one move), then `tier` (one tier).
"""
