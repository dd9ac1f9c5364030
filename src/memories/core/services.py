"""The parts that work for one manager: what `wiring` makes, and the manager calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from memories import codecs
from memories.backends.base import Backend
from memories.codecs import main_classes
from memories.engine.hierarchy import Hierarchy
from memories.engine.lifecycle_state import LifecycleState
from memories.engine.payload import Payload
from memories.errors import InvalidOptionError, UnsupportedTypeError
from memories.foundation.clock import Clock
from memories.foundation.warn_caller import warn_caller
from memories.model.tiers import TierName
from memories.options.migration import MigrationSettings
from memories.options.settings import Settings

if TYPE_CHECKING:
    from memories.core.kept_options import KeptOptions
    from memories.core.write_behind import WriteBehind
    from memories.devices import Device
    from memories.engine.access_sampler import AccessSampler
    from memories.engine.fetch_costs import FetchCosts
    from memories.migration.migrator import Migrator
    from memories.migration.prefetching import Prefetching
    from memories.observe.move_log import MoveLog
    from memories.observe.telemetry_service import TelemetryService
    from memories.sealing.key_files import KeyRotation
    from memories.sealing.master_key import EncryptionKey


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Services:
    """The parts of one manager.

    Attributes:
        settings: The checked options of the manager.
        clock: The source of time for all parts.
        hierarchy: The tiers.
        backends: The durable stores: the disk first, then the bucket if there is one.
        media: A description of the medium of each tier.
        migration: The settings of migration; False where it is off.
        device: The GPU that holds the hot tier; None where the hot tier is host RAM.
        migrator: Moves values between tiers; None where migration is off.
        prefetching: Reads values ahead; None for a reader.
        write_behind: Writes durable copies of cached results in the background.
        access_sampler: Samples accesses for the miss-ratio curve.
        move_log: The latest moves between tiers.
        fetch_costs: What a fetch from each tier takes, by size, as measured.
        telemetry: Counters, series and the state document.
        opened_at: The latest version when the manager was made: later ones were stored by it.
        remove_private: Removes the private temporary directory; None where the caller named one.
        purge_archive: Unlinks the archived objects up to a version; None without an archive.
        storage_options: The options of the archive, as a pickled manager refers to them.
    """

    settings: Settings
    clock: Clock
    hierarchy: Hierarchy
    backends: list[Backend]
    media: dict[TierName, str]
    migration: MigrationSettings | Literal[False]
    device: Device | None
    migrator: Migrator | None
    prefetching: Prefetching | None
    write_behind: WriteBehind
    access_sampler: AccessSampler
    move_log: MoveLog
    fetch_costs: FetchCosts
    telemetry: TelemetryService
    opened_at: int
    remove_private: Callable[[], None] | None
    purge_archive: Callable[[int], None] | None
    storage_options: KeptOptions

    @property
    def is_private(self) -> bool:
        """Return whether the store lies in a temporary directory that ends with the manager."""
        return self.remove_private is not None

    @property
    def saves_at_end(self) -> bool:
        """Return whether values that are only in RAM must be written before the end."""
        return self.hierarchy.state is LifecycleState.OPEN and not self.is_private

    @property
    def outlives_process(self) -> bool:
        """Return whether stored values can be read after this process has ended."""
        archived = self.settings.glacier_enabled and self.settings.glacier_url is not None
        return not self.is_private or archived

    def payload_of(
        self, key: str, data: Any, *, copy: bool = True, borrow: bool = False
    ) -> Payload:
        """Return the value of a caller as a payload.

        Warns where other processes will read the value and it needs classes of `__main__`.

        Args:
            key: The key, for the warning.
            data: The value.
            copy: False shares the memory of `data`, which the caller gives up.
            borrow: True shares the memory of `data` for the duration of the call.
        """
        if type(data) in codecs.ALWAYS_SHARED:
            return Payload.of_object(data)
        if codecs.is_plain_array(data):  # It needs no classes.
            return Payload.borrowed(data) if borrow else Payload.of(data, copy=copy)
        with main_classes.collect_names() as names:
            payload = Payload.borrowed(data) if borrow else Payload.of(data, copy=copy)
        if names and self.outlives_process:
            main_classes.warn_about(key, names)
        return payload

    def location(self) -> tuple[Any, ...]:
        """Return the sizes of the tiers, and where the values are."""
        settings = self.settings
        sizes = tuple(sorted(settings.capacities.items()))
        return sizes, str(settings.storage_path), settings.glacier_url

    def rotate_key(self, to: EncryptionKey | None) -> KeyRotation:
        """Wrap the data keys of the store anew; see `MemoryManager.rotate_key`."""
        from memories.backends.disk import data_keys

        key, path = self.settings.encryption, self.settings.storage_path
        if key is None or path is None:
            raise InvalidOptionError("only a store with encryption= and storage_path= has a key")
        done = data_keys.rotate(path / "cold", key, to)
        if self.settings.glacier_enabled:
            from memories.backends.bucket import BucketBackend

            for backend in self.backends:
                if isinstance(backend, BucketBackend):
                    done = done.plus(backend.rotate_key(key, to))
        return done

    def reader_arguments(self) -> tuple[Any, ...]:
        """Return the sizes, and the options, of a read-only manager of the same store.

        Raises:
            UnsupportedTypeError: the store ends with this manager.
        """
        if self.is_private:
            raise UnsupportedTypeError(
                "a manager without storage_path cannot be pickled, because no other process can "
                "open its directory: give it a storage_path (a process then gets a manager that "
                "reads what is on the disk), or pass the values themselves"
            )
        count = len(self.hierarchy.unwritten_keys())
        if count:
            warn_caller(
                f"the pickled manager of {self.settings.storage_path} reads only what is on the "
                f"disk, and {count} values are only in RAM: call flush() before"
            )
        capacities = self.settings.capacities
        sizes = [f"{capacities[name]} B" for name in (TierName.HOT, TierName.WARM, TierName.COLD)]
        options = {
            "storage_path": self.settings.storage_path,
            "glacier_url": self.settings.glacier_url,
            "storage_options": self.storage_options,
            "encryption": self.settings.encryption,
        }
        return (*sizes, self.settings.glacier_enabled, options)
