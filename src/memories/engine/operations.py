"""Runs the calls that change the store, and repairs what one leaves when it ends in the middle.

An interrupt, a failing allocation, a stack that is too deep or a signal handler that raises can end
a call at any line, also in the lines that clean up. The repair starts from what is certain: a key's
entry and its record each change in one step. They are made to agree, and whatever follows from the
entries (budgets, eviction orders) is counted anew once no other call is under way.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from threading import get_ident
from types import FrameType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from memories.engine.entry_table import EntryTable
from memories.engine.keylocks import KeyLocks
from memories.errors import MemoriesError
from memories.foundation.call_owner import CallOwner
from memories.foundation.fork_lock import holder_test, holds_none, interrupting, new_lock
from memories.foundation.logging import logger

STACK_FRAMES = 150  # A call needs fewer; deeper nested data is encoded before it begins.
ALONE_POLLS = 50
POLL_SECONDS = 0.001
RETRY_SECONDS = 1.0  # Between two attempts to repair what could not be repaired yet.

_OURS = {"memories", "contextlib", "functools"}  # The packages whose code makes up a call.

T = TypeVar("T")
P = ParamSpec("P")


class Operation(CallOwner):
    """One call that changes the store."""

    __slots__ = ("callers_error", "calling", "has_settled", "keys", "torn")

    def __init__(self) -> None:
        # As `CallOwner` does; a call costs more than these lines.
        self.thread = get_ident()
        self._frame = sys._getframe(1)
        self.keys: set[str] = set()  # Keys on which its work has not ended in good order.
        self.callers_error: BaseException | None = None  # Raised by a function of the caller.
        self.calling = 0  # Depth of such functions, which may call the manager again.
        self.torn = False  # Whether it, or a call within it, ended in the middle.
        self.has_settled = False  # Whether it had reported what the short way did before it.

    def record_error(self, error: BaseException) -> None:
        """Record that `error` ends the call; errors of this package end it in good order."""
        if error is not self.callers_error:
            self.torn = self.torn or not isinstance(error, MemoriesError) or _is_foreign(error)

    def is_interrupted(self) -> bool:
        """Return whether foreign code runs within the call and calls the manager again."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame is not self._frame:
            if not _is_ours(frame):
                return True
            frame = frame.f_back
        return False

    def end(self) -> None:
        """Mark the call as over."""
        self._frame = None
        self.callers_error = None  # Its traceback leads back here.


class Operations:
    """The calls under way in one manager, and the repairs after torn ones."""

    def __init__(
        self,
        *,
        reconcile_key: Callable[[str], None],
        recount: Callable[[], None],
        reset_nesting: Callable[[], None],
        monotonic: Callable[[], float],
        table: EntryTable,
    ) -> None:
        """Start with no call under way.

        `reconcile_key` repairs one key under its lock. `recount` counts anew while no call is under
        way. `reset_nesting` resets the depth of this thread's evictions. `table` has the key
        locks.
        """
        self._reconcile_key = reconcile_key
        self._recount = recount
        self._reset_nesting = reset_nesting
        self._monotonic = monotonic
        self._running: dict[int, Operation] = {}
        self._gate = new_lock(outermost=True)  # Held while no call may begin, ...
        self._is_gate_held_here = holder_test(self._gate)
        self._is_gate_closed = False  # ... and this says so.
        self._unrepaired: set[str] = set()
        self._recounted = True
        self._retry_at = 0.0
        # Says whether this thread holds a lock, thus is in the middle of something.
        self.holds_lock: Callable[[], bool] = holds_none
        self.locks = KeyLocks(self._running.get, monotonic=monotonic, table=table)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `work(...)`; if it ends in the middle, repair what it left."""
        me = get_ident()
        outer = self._running.get(me)
        if outer is not None and outer.alive:
            return self._run_within(outer, work, *args, **kwargs)
        if outer is not None:
            self._end_torn(me, outer)  # Its end was interrupted, too.
        if self.holds_lock() or self._is_gate_held_here():
            raise interrupting()
        require_stack()
        operation = Operation()
        self._running[me] = operation
        if self._is_gate_closed or self._unrepaired or not self._recounted:
            self._prepare(me, operation)
        try:
            return work(*args, **kwargs)
        except BaseException as error:
            operation.record_error(error)
            raise
        finally:
            if operation.torn:
                self._end_torn(me, operation)
            else:
                self._running.pop(me, None)
                operation.end()

    def call_user(self, function: Callable[..., T], *args: Any) -> T:
        """Return `function(...)` of the caller: an exception of it leaves nothing to repair."""
        operation = self._running[get_ident()]
        operation.calling += 1
        try:
            return function(*args)
        except BaseException as error:
            operation.callers_error = error
            raise
        finally:
            operation.calling -= 1
            operation.has_settled = False  # The function may have stored something.

    def begins_to_settle(self) -> bool:
        """Return True once in the call of this thread, and always where it makes none."""
        operation = self._running.get(get_ident())
        if operation is None:
            return True
        before, operation.has_settled = operation.has_settled, True
        return not before

    def repair(self, key: str) -> None:
        """Repair what a change of `key` outside of any call left when an exception ended it."""
        self._unrepaired.add(key)
        self.require_recount()
        outer = self._running.get(get_ident())
        if outer is None or not outer.alive:  # Otherwise the next call repairs it.
            self.run(self._repair)

    def require_recount(self) -> None:
        """Recount at the next call, or when no other call is under way."""
        self._recounted = False

    def reset(self) -> None:
        """Forget all calls, in a forked child: their threads do not exist there."""
        self._is_gate_closed = False
        self._running.clear()
        self.locks.reset()

    def require_free(self) -> None:
        """Raise BusyError where this thread holds a lock, and a handler or a destructor calls."""
        if self.holds_lock():
            raise interrupting()

    def require_outermost(self) -> None:
        """Raise BusyError if a call of this thread goes on, in a function of the caller too."""
        outer = self._running.get(get_ident())
        if outer is not None and outer.alive:
            raise interrupting()

    def _run_within(
        self, outer: Operation, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a call within a call.

        Raises:
            BusyError: a signal handler or a destructor makes it, wherever the outer one may be.
        """
        if not outer.calling and outer.is_interrupted():
            raise interrupting()
        try:
            return work(*args, **kwargs)
        except BaseException as error:
            outer.record_error(error)
            raise

    def _prepare(self, me: int, operation: Operation) -> None:
        """Wait until a call may begin, and repair what others left."""
        while self._is_gate_closed:
            # The thread that closed it waits for the calls under way, and this one has not begun.
            self._running.pop(me, None)
            with self._gate:
                # The thread that closed the gate has ended, perhaps by an interrupt.
                self._is_gate_closed = False
                self._running[me] = operation
        if (self._unrepaired or not self._recounted) and self._monotonic() >= self._retry_at:
            self._repair()

    def _end_torn(self, me: int, operation: Operation) -> None:
        """End a torn call; may be done again where an interrupt ended it in the middle."""
        self._recounted = False
        self._reset_nesting()
        self._unrepaired.update(operation.keys)
        self._repair_keys()  # This call still holds its locks.
        self.locks.release_all(me)
        self._repair()
        self._running.pop(me, None)
        operation.end()

    def _repair(self) -> None:
        """Repair what torn calls left, as far as that is possible now."""
        self._repair_keys()
        if not self._recounted:
            self._recount_alone()
        self._retry_at = self._monotonic() + RETRY_SECONDS

    def _repair_keys(self) -> None:
        for key in list(self._unrepaired):
            try:
                self._reconcile_key(key)
            except MemoriesError as error:
                # The medium fails; this call is not the cause. A later call tries again.
                logger.warning("an interrupted call is not repaired yet: %s", error)
                return
            self._unrepaired.discard(key)

    def _recount_alone(self) -> None:
        """Recount what follows from the entries, once no other call is under way."""
        me = get_ident()
        with self._gate:
            self._is_gate_closed = True
            try:
                for _ in range(ALONE_POLLS):
                    others = [one for thread, one in list(self._running.items()) if thread != me]
                    if not any(one.alive for one in others):
                        self._recount()
                        self._recounted = True
                        return
                    time.sleep(POLL_SECONDS)
            finally:
                self._is_gate_closed = False


def _is_ours(frame: FrameType) -> bool:
    package, _, _ = str(frame.f_globals.get("__name__")).partition(".")
    return package in _OURS


def _is_foreign(error: BaseException) -> bool:
    """Return whether an error passed through foreign code, such as a signal handler."""
    trace = error.__traceback__
    while trace is not None:
        if not _is_ours(trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


class Operates(Protocol):
    """An object with calls that change the store."""

    @property
    def operations(self) -> Operations:
        """The calls under way."""


Self = TypeVar("Self", bound=Operates)


def operation(method: Callable[Concatenate[Self, P], T]) -> Callable[Concatenate[Self, P], T]:
    """Make a method a call that changes the store."""

    @wraps(method)
    def run(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.operations.run(method, self, *args, **kwargs)

    return run


def require_stack() -> None:
    """Raise RecursionError before a call that the rest of the stack is too short for."""
    deepest = sys.getrecursionlimit() - STACK_FRAMES
    if deepest <= 0:
        return
    try:
        sys._getframe(deepest)
    except ValueError:
        return  # It is not as deep as that.
    raise RecursionError(
        f"less than {STACK_FRAMES} frames of the stack are left, which a call that changes the "
        "store may need; call it from less deep, or raise sys.setrecursionlimit()"
    )
