"""When an access happened is known from its stamp, without a clock on the hit path."""

from __future__ import annotations

import threading

from memories.engine.hit_clock import MAX_NOTES, HitClock
from memories.engine.hit_counter import HitCounter


def test_hits_are_counted_exactly_by_many_threads() -> None:
    """A rate that is derived from a wrong counter lies."""
    counter = HitCounter()

    def hit() -> None:
        for _ in range(20_000):
            counter.tick()

    threads = [threading.Thread(target=hit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        counter.stamp()
        thread.join()
    assert 160_000 == counter.hits
    assert 160_000 == counter.hits


def test_an_access_is_as_old_as_the_first_note_after_it() -> None:
    """Never older than it was: an idle value may stay a little longer, never leave too early."""
    counter = HitCounter()
    timeline = HitClock(counter, 0.0)
    stamps = []
    for second in range(1, 10):
        stamps.append(counter.tick())
        timeline.record(float(second))
    assert [float(second) for second in range(1, 10)] == [timeline.time_of(s) for s in stamps]
    assert 9.0 == timeline.time_of(counter.tick())


def test_old_notes_thin_out_and_keep_their_order() -> None:
    """A week of notes takes no more memory than an hour."""
    counter = HitCounter()
    timeline = HitClock(counter, 0.0)
    stamps = {}
    for second in range(1, 20_000):
        stamps[second] = counter.tick()
        timeline.record(float(second))
    assert len(timeline._times) <= MAX_NOTES
    times = [timeline.time_of(stamp) for stamp in stamps.values()]
    assert times == sorted(times)
    assert all(time >= second for second, time in zip(stamps, times, strict=True))
    assert 19_999.0 == times[-1]
