"""The report of the demo: the measurements of the run as text."""

from __future__ import annotations

from collections.abc import Iterator

from memories.cli.demo.outcome import DemoPairResult, DemoResult
from memories.cli.demo.raster import TILE
from memories.cli.demo.watch import NEIGHBOURS
from memories.foundation.units import format_size, limit_words
from memories.model.tiers import TierName


def report(outcome: DemoResult) -> Iterator[str]:
    """Yield the lines of the report."""
    rows, columns, months = outcome.shape
    yield (
        f"Linke turbidity, {rows} x {columns} x {months} of uint8: "
        f"{format_size(outcome.raw_bytes)} as {outcome.raster_tiles} tiles of "
        f"{TILE} x {TILE} x {months}"
    )
    yield ""
    yield from _tiers(outcome)
    yield ""
    yield from _moves(outcome)
    yield ""
    yield from _times(outcome)
    yield ""
    yield from _verdict(outcome)


def _tiers(outcome: DemoResult) -> Iterator[str]:
    headings = f"{'answered':>10}{'of reads':>10}{'keys':>7}{'holds':>11}{'at most':>11}{'of':>10}"
    yield f"{'tier':<9}{headings}"
    for name, tier in outcome.tiers.items():
        yield (
            f"{name:<9}{tier.answered:>10,}{_share(tier.answered, outcome.reads):>10}"
            f"{tier.keys:>7,}{format_size(tier.used_bytes):>11}{format_size(tier.peak_bytes):>11}"
            f"{limit_words(tier.configured_bytes):>10}"
        )
    absent = _share(outcome.absent, outcome.reads)
    yield f"{'absent':<9}{outcome.absent:>10,}{absent:>10}  (decoded from the file and stored)"
    yield (
        f"hit rate {outcome.hit_rate_percent:.1f} %: the reads that hot or warm answered, "
        f"of {outcome.reads:,}"
    )


def _moves(outcome: DemoResult) -> Iterator[str]:
    yield f"{'moves, by the manager itself':<30}{'down':>22}{'up':>22}"
    for upper, lower in NEIGHBOURS:
        down, up = outcome.moves[upper, lower], outcome.moves[lower, upper]
        yield f"{f'{upper} <-> {lower}':<30}{_pair(down):>22}{_pair(up):>22}"


def _times(outcome: DemoResult) -> Iterator[str]:
    file, ram = outcome.from_file, outcome.from_ram
    memory = sum(outcome.tiers[name].peak_bytes for name in (TierName.HOT, TierName.WARM))
    yield f"waiting for the same {outcome.reads:,} reads"
    yield (
        f"  {'four tiers':<22}{_seconds(outcome.seconds):>10}   "
        f"at most {format_size(memory)} of tiles in RAM"
    )
    yield (
        f"  {'':<22}{'':>10}   {_seconds(outcome.storing_seconds)} of it for decoding and storing "
        f"{outcome.absent:,} tiles once"
    )
    yield (
        f"  {'decoding the file':<22}{_seconds(file.seconds):>10}   "
        f"{_times_as_long(file.seconds, outcome.seconds)}"
    )
    yield (
        f"  {'everything in a dict':<22}{_seconds(ram.seconds):>10}   after "
        f"{_seconds(ram.preparing_seconds)} of loading, {format_size(outcome.raw_bytes)} in RAM"
    )


def _verdict(outcome: DemoResult) -> Iterator[str]:
    equal = outcome.reads - outcome.different
    yield f"{equal:,} of {outcome.reads:,} answers were bit for bit what the file gives"
    yield (
        f"session {outcome.session_seconds:.1f} s, all in all {outcome.total_seconds:.1f} s, "
        f"peak RSS {format_size(outcome.peak_rss_bytes)}"
    )
    if outcome.picture is not None:
        yield f"picture of usage and hit rate over time: {outcome.picture}"


def _pair(moves: DemoPairResult) -> str:
    return f"{moves.moves:,} of {moves.keys:,} keys"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


def _times_as_long(seconds: float, ours: float) -> str:
    return f"{seconds / ours:.1f} times as long" if ours else ""
