"""A value in the memory of a device: its description in RAM, its bytes on the device.

All bytes that are brought to the device for one value lie in one allocation, even for a hundred
thousand small tensors, so that the value is uploaded, downloaded and cloned in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from memories import codecs
from memories.codecs.base import NOTHING_FAR, DeviceBuffer, Parts, Sharing
from memories.codecs.buffers import EMPTY, allocate, view_bytes
from memories.devices.base import Device, DevicePiece, layout
from memories.engine.payload import Payload
from memories.foundation.host_limits import ENTRY_BYTES
from memories.frames.signing import Keyring
from memories.model.entry import PartsEntry
from memories.model.tiers import Form


class DevicePayload(Payload):
    """A value in private memory of a device; an entry holds the payload itself.

    A reader gets a value of its own: what lived on this device as a private clone, in the order of
    the reader's stream, everything else as a copy in the host's memory.
    """

    __slots__ = ("_description", "_offsets", "_slab", "_wait", "device")

    form = Form.DEVICE
    entry_type = PartsEntry

    def __init__(
        self, parts: Parts, size: int, device: Device, slab: Any, offsets: dict[int, int]
    ) -> None:
        super().__init__(size)
        self._description = parts  # Every buffer that has bytes is in `far`.
        self.device = device
        self._slab = slab  # The one allocation in which buffers lie at `offsets`.
        self._offsets = offsets
        self._wait = device.record_event()

    @classmethod
    def upload(cls, parts: Parts, size: int, device: Device) -> DevicePayload:
        """Bring every buffer of `parts` onto `device`, in the order of the caller's stream.

        `size` is what `size_on_device` says of them. A buffer that lies there already and is
        `owned` is taken over without a copy.

        Raises:
            DeviceFullError: the device has no room for them.
            DeviceLostError: it failed.
        """
        kept = {
            index: buffer._replace(memory=device.wrap(buffer.memory))
            for index, buffer in parts.far.items()
            if index in parts.owned and buffer.device == device.name
        }
        moving = [i for i in range(len(parts.buffers)) if i not in kept and _nbytes(parts, i)]
        places, nbytes = layout(_nbytes(parts, i) for i in moving)
        offsets = dict(zip(moving, places, strict=True))
        slab = device.allocate(nbytes) if nbytes else None
        near = {i: buffer for i, buffer in parts.far.items() if buffer.device == device.name}
        device.copy(
            slab,
            [DevicePiece(offsets[i], device.wrap(near[i].memory)) for i in moving if i in near],
        )
        device.upload(
            slab, [DevicePiece(offsets[i], _host(parts, i)) for i in moving if i not in near]
        )
        far = kept | {
            i: _buffer(device, device.view(slab, offset, _nbytes(parts, i)))
            for i, offset in offsets.items()
        }
        moved = parts._replace(buffers=(EMPTY,) * len(parts.buffers), owned=frozenset(far), far=far)
        return cls(moved, size, device, slab, offsets)

    @property
    def codec(self) -> str:
        """Return the name of the codec of the value."""
        return self._description.codec

    def open(self, trust: Keyring | None = None, *, verify: bool = True) -> Any:
        """Return a reader's own value."""
        del trust, verify
        return self._read(self._description, clone=True)

    def open_shared(self, trust: Keyring | None = None, *, verify: bool = True) -> Any:
        """Return the value over the device memory itself, which the reader must not write to."""
        del trust, verify
        return self._read(self._description, clone=False)

    def open_copy(self, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a copy that the reader may change."""
        if self.sharing is Sharing.FRESH:
            return self.open()
        return super().open_copy(trust, verify=verify)

    def open_on(self, device: str, trust: Keyring, *, verify: bool = True) -> Any:
        """Return a reader's own value, with everything that can live on `device` living there."""
        if self.sharing is Sharing.FRESH:
            return self._read(codecs.move_home(self._description, device), clone=True)
        return self.open_copy(trust, verify=verify)

    def parts(self, trust: Keyring | None = None, *, verify: bool = True) -> Parts:
        """Return the value's parts in private read-only memory of the host."""
        del trust, verify
        self._wait()
        buffers = self._downloaded(list(self._description.far))
        return self._description._replace(
            buffers=buffers, owned=frozenset(range(len(buffers))), far=NOTHING_FAR
        )

    def description(self) -> Parts:
        """Return the value taken apart, with its buffers on the device."""
        return self._description

    def owners(self) -> Iterable[Any]:
        """Return the allocations, which end with the last reference to their memory."""
        buffers = self._description.far.values()
        owners = [self.device.owner(buffer.memory) for buffer in buffers]
        return {id(owner): owner for owner in owners}.values()

    def _read(self, parts: Parts, *, clone: bool) -> Any:
        """Return the value that `parts`, a description of this one, stands for."""
        homes = codecs.home_devices(parts)
        stay = [i for i in parts.far if homes[i] == self.device.name]
        go = [i for i in parts.far if homes[i] != self.device.name]
        self._wait()
        far = self._cloned(stay) if clone else {i: parts.far[i] for i in stay}
        return codecs.decode(parts._replace(buffers=self._downloaded(go), far=far))

    def _cloned(self, indices: list[int]) -> dict[int, DeviceBuffer]:
        places, nbytes = layout(self._description.far[i].nbytes for i in indices)
        if not nbytes:
            return {}
        slab = self.device.allocate(nbytes)
        if indices == list(self._offsets) and places == list(self._offsets.values()):
            self.device.copy(slab, [DevicePiece(0, self._slab)])
        else:
            self.device.copy(
                slab,
                [
                    DevicePiece(at, self._description.far[i].memory)
                    for i, at in zip(indices, places, strict=True)
                ],
            )
        return {
            i: _buffer(self.device, self.device.view(slab, at, self._description.far[i].nbytes))
            for i, at in zip(indices, places, strict=True)
        }

    def _downloaded(self, indices: list[int]) -> tuple[memoryview, ...]:
        """Return all buffers, those at `indices` filled and the others empty."""
        buffers = [EMPTY] * len(self._description.buffers)
        places, nbytes = layout(self._description.far[i].nbytes for i in indices)
        arena = allocate(nbytes)
        for i, at in zip(indices, places, strict=True):
            buffers[i] = view_bytes(arena[at : at + self._description.far[i].nbytes])
        packed = sorted((i for i in indices if i in self._offsets), key=self._offsets.__getitem__)
        if packed:
            pieces = [DevicePiece(self._offsets[i], buffers[i]) for i in packed]
            self.device.download(self._slab, pieces)
        for i in indices:
            if i not in self._offsets:
                self.device.download(self._description.far[i].memory, [DevicePiece(0, buffers[i])])
        return tuple(buffer.toreadonly() for buffer in buffers)

    def __repr__(self) -> str:
        return f"<DevicePayload {self.codec} on {self.device.name}, {self._description.nbytes} B>"


def size_on_device(parts: Parts) -> int:
    """Return the bytes that `parts` take on a device, the entry included."""
    return layout(_nbytes(parts, i) for i in range(len(parts.buffers)))[1] + ENTRY_BYTES


def _nbytes(parts: Parts, index: int) -> int:
    return parts.far[index].nbytes if index in parts.far else parts.buffers[index].nbytes


def _host(parts: Parts, index: int) -> memoryview:
    """Return a buffer in the host's memory, fetched from another device if it lies on one."""
    return parts.far[index].fetch() if index in parts.far else parts.buffers[index]


def _buffer(device: Device, memory: Any) -> DeviceBuffer:
    nbytes = device.nbytes(memory)
    fetch = partial(_fetch, device, memory, nbytes)
    return DeviceBuffer(memory, nbytes, device.name, id(memory), fetch)


def _fetch(device: Device, memory: Any, nbytes: int) -> memoryview:
    target = view_bytes(allocate(nbytes))
    device.download(memory, [DevicePiece(0, target)])
    return target.toreadonly()
