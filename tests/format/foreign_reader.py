"""Reads arrays out of raw frames with NumPy and the standard library, from docs/format.md alone."""

import struct

import numpy as np

SHAPES = "bbb   nnnnnnnnnn     sssllmm"  # The msgpack types from 0xC4 on, and the widths they use.
WIDTHS = "BHI   fdBHIQbhiq     BHIHIHI"


def unpack(data, at):
    kind, at = data[at], at + 1
    if kind < 0x80 or kind >= 0xE0:
        return (kind + 128) % 256 - 128, at
    if kind in (0xC0, 0xC2, 0xC3):
        return (None, None, False, True)[kind - 0xC0], at
    shape, count = "mlss"[kind // 16 - 8 & 3], kind & (0x1F if kind >= 0xA0 else 0x0F)
    if kind > 0xC3:
        shape, width = SHAPES[kind - 0xC4], ">" + WIDTHS[kind - 0xC4]
        (count,), at = struct.unpack_from(width, data, at), at + struct.calcsize(width)
    if shape == "n":
        return count, at
    if shape in "bs":
        raw = data[at : at + count]
        return (raw.decode() if shape == "s" else raw), at + count
    items = []
    for _ in range(count * (2 if shape == "m" else 1)):
        item, at = unpack(data, at)
        items.append(item)
    return (items if shape == "l" else dict(zip(items[::2], items[1::2], strict=True))), at


def read_arrays(frame):
    magic, form, _, head, body, *_ = struct.unpack_from("<8sHHIQIIQ", frame)
    assert (magic, form, head + body) == (b"\x93MEMORY\n", 1, len(frame))
    fields = unpack(frame, 40)[0]
    spill = fields.get("spill")
    meta, pieces = unpack(frame, head + spill[0])[0] if spill else unpack(fields["content"], 0)[0]
    nodes = meta["nodes"] if fields["codec"] == "tree" else [["ndarray", meta, [0]]]
    for spec, places in [node[1:] for node in nodes if node[0] == "ndarray"]:
        offset, stored, _, compressor, *_ = pieces[places[0]]
        assert compressor == 0
        data = frame[head + offset : head + offset + stored]
        yield np.frombuffer(data, spec["dtype"]).reshape(spec["shape"], order=spec["order"])
