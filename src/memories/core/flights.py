"""Single flight: whoever asks for what is being computed waits for it, once per key.

Not a cache: a flight is forgotten when it lands. A wait that could never end, because the one
waited for waits in turn (a function that calls itself, or two that call each other), is refused,
and its caller computes for himself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any

from memories.locks import new_lock


class Flight:
    """One computation under way."""

    __slots__ = ("future", "pilot")

    def __init__(self, pilot: Hashable) -> None:
        self.pilot = pilot
        self.future: Future[Any] = Future()


class Flights:
    """The computations under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._waits: dict[Hashable, str] = {}
        self._lock = new_lock()

    def board(self, key: str, passenger: Hashable) -> tuple[Flight, bool]:
        """Return the flight of `key` and whether `passenger` is to compute it himself.

        A passenger who is not must call `leave` when he has waited.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight(passenger)
                return flight, True
            if self._waits_for(flight, passenger):
                return Flight(passenger), True
            self._waits[passenger] = key
            return flight, False

    def leave(self, passenger: Hashable) -> None:
        """Learn that `passenger` waits no longer."""
        with self._lock:
            self._waits.pop(passenger, None)

    def land(self, key: str, flight: Flight) -> None:
        """Forget a flight whose future is done."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _waits_for(self, flight: Flight | None, passenger: Hashable) -> bool:
        while flight is not None:
            if flight.pilot == passenger:
                return True
            key = self._waits.get(flight.pilot)
            flight = None if key is None else self._flights.get(key)
        return False


def fly(flights: Flights, key: str, compute: Callable[[], Any]) -> Any:
    """Return `compute()`, or what another thread that was there first computes."""
    me = threading.get_ident()
    flight, mine = flights.board(key, me)
    if not mine:
        try:
            return flight.future.result()
        finally:
            flights.leave(me)
    try:
        result = compute()
    except BaseException as error:
        flights.land(key, flight)
        flight.future.set_exception(error)
        raise
    flights.land(key, flight)
    flight.future.set_result(result)
    return result
