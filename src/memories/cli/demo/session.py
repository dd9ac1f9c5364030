"""Runs the demo: a session of the viewer, the baselines, and the measurements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from memories.cli.demo.baselines import from_file, from_ram
from memories.cli.demo.memory import peak_rss_bytes
from memories.cli.demo.outcome import DemoPairResult, DemoResult, DemoTierResult
from memories.cli.demo.picture import draw
from memories.cli.demo.raster import Raster
from memories.cli.demo.table import shown
from memories.cli.demo.viewer import Viewer
from memories.cli.demo.watch import NEIGHBOURS, DemoWatch
from memories.cli.demo.workload import ViewFrame, script

if TYPE_CHECKING:
    from memories import MemoryManager

ANALYTICS_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """The sizes of the tiers and the length of the session."""

    hot: str = "8MB"
    warm: str = "16MB"
    cold: str = "8MB"
    regions: int = 5
    frame_seconds: float = 0.1
    seed: int = 7


class DemoScenes:
    """The begin of each scene."""

    def __init__(self) -> None:
        self._started_at = perf_counter()
        self.began: list[tuple[str, float]] = []

    def record(self, scene: str) -> None:
        """Record that a frame of `scene` was drawn."""
        if not self.began or self.began[-1][0] != scene:
            self.began.append((scene, perf_counter() - self._started_at))


def run(plan: DemoPlan, raster_path: Path, picture: Path | None) -> DemoResult:
    """Run the session and the baselines, and return the measurements.

    Raises:
        StorageError: the picture cannot be written.
    """
    from memories import MemoryManager

    started = perf_counter()
    with (
        Raster(raster_path) as raster,
        MemoryManager(plan.hot, plan.warm, plan.cold, True) as manager,
    ):
        watch, viewer, scenes = DemoWatch(manager), Viewer(manager, raster), DemoScenes()
        manager.enable_analytics(interval=ANALYTICS_SECONDS)
        _play(plan, raster, viewer, watch, scenes)
        session_seconds = perf_counter() - started
        if picture is not None:
            draw(manager.get_analytics(), scenes.began, picture)
        return _measure(manager, raster, viewer, watch, started, session_seconds, picture)


def _play(
    plan: DemoPlan, raster: Raster, viewer: Viewer, watch: DemoWatch, scenes: DemoScenes
) -> None:
    frames = script(raster.rows, raster.columns, regions=plan.regions, seed=plan.seed)
    with shown(watch) as show:

        def drawn(frame: ViewFrame) -> None:
            scenes.record(frame.scene)
            show(frame.scene)

        viewer.play(frames, plan.frame_seconds, drawn)


def _measure(
    manager: MemoryManager,
    raster: Raster,
    viewer: Viewer,
    watch: DemoWatch,
    started: float,
    session_seconds: float,
    picture: Path | None,
) -> DemoResult:
    stats = watch.read()
    file = from_file(raster, viewer.requests, viewer.digests)
    ram = from_ram(raster, viewer.requests, viewer.digests)
    return DemoResult(
        shape=raster.shape,
        raw_bytes=raster.nbytes,
        raster_tiles=raster.rows * raster.columns,
        tiers={
            name: DemoTierResult(
                answered=tier.hits,
                keys=tier.keys,
                configured_bytes=tier.configured_bytes,
                used_bytes=tier.used_bytes,
                peak_bytes=watch.peak_bytes[name],
            )
            for name, tier in stats.tiers.items()
        },
        moves={
            pair: DemoPairResult(moves=watch.moves[pair], keys=len(watch.moved_keys[pair]))
            for upper, lower in NEIGHBOURS
            for pair in ((upper, lower), (lower, upper))
        },
        reads=len(viewer.requests),
        absent=stats.misses,
        different=file.different,
        seconds=viewer.seconds,
        storing_seconds=viewer.storing_seconds,
        session_seconds=session_seconds,
        from_file=file,
        from_ram=ram,
        peak_rss_bytes=peak_rss_bytes(),
        total_seconds=perf_counter() - started,
        picture=picture,
    )
