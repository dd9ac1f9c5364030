"""Exceptions come back whole, whatever their constructors ask for."""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any

from memories.codecs.exceptions import reduce_exception


class DemandingError(ValueError):
    """An exception whose constructor takes other arguments than those it passes on."""

    made = 0

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} in {where}")
        self.code, self.where = code, where
        type(self).made += 1


def again(error: BaseException) -> Any:
    """Return the exception after it was pickled by its reduction."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 5)
    pickler.dispatch_table = {**copyreg.dispatch_table, type(error): reduce_exception}
    pickler.dump(error)
    return pickle.loads(buffer.getvalue())


def test_a_constructor_with_arguments_of_its_own_is_not_called() -> None:
    """Pickle alone calls it with the wrong arguments and fails when the value is read."""
    error = DemandingError(3, where="here")
    error.add_note("a note")
    made = DemandingError.made
    back = again(error)
    assert DemandingError is type(back) and made == DemandingError.made
    assert (("3 in here",), 3, "here") == (back.args, back.code, back.where)
    assert ["a note"] == back.__notes__


def test_cause_and_fields_of_builtin_exceptions_are_kept() -> None:
    """The cause is often the only useful part."""
    error = FileNotFoundError(2, "No such file", "a.txt")
    error.__cause__ = KeyError("a")
    back = again(error)
    assert (2, "a.txt") == (back.errno, back.filename)
    assert isinstance(back.__cause__, KeyError) and back.__suppress_context__
