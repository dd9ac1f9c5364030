"""Promise 8: nothing that was read can run code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.promises.conftest import Make

from memories import InvalidOptionError, UnsupportedTypeError, UntrustedDataError
from memories.cli.app import app


class Custom:
    """A type without a codec, so that it must be pickled."""

    def __init__(self, word: str) -> None:
        self.word = word

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom) and self.word == other.word

    __hash__ = object.__hash__


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_other_objects_are_signed_and_come_back(make: Make) -> None:
    """The user's own objects work as ever, over a reopen too."""
    manager = make()
    for tier in ("hot", "warm", "cold", "glacier"):
        manager.store(tier, Custom(tier), tier)
        assert Custom(tier) == manager.retrieve(tier)
    manager.cleanup()
    again = make()
    assert Custom("hot") == again.retrieve("hot")


@pytest.mark.parametrize("tier", ["cold", "glacier"])
def test_an_object_signed_by_a_stranger_is_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str
) -> None:
    """A store from another user is only data until its reader trusts that user."""
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "theirs"))
    manager = make()
    manager.store("bomb", Bomb(str(tmp_path / "exploded")), tier)
    manager.store("plain", np.arange(3), tier)
    manager.cleanup()
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "mine"))
    again = make()
    with pytest.raises(UntrustedDataError, match="trust"):
        again.retrieve("bomb")
    assert not (tmp_path / "exploded").exists()
    assert np.array_equal(np.arange(3), again.retrieve("plain"))


def test_a_stranger_is_trusted_on_purpose_only(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an argument, or by importing the stranger's key once."""
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "theirs"))
    manager = make()
    manager.store("a", Custom("theirs"), "cold")
    manager.cleanup()
    exported = CliRunner().invoke(app, ["key", "export"])
    secret = exported.stdout.strip()
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(tmp_path / "mine"))
    trusting = make(trusted_keys=[secret])
    assert Custom("theirs") == trusting.retrieve("a")
    assert secret not in repr(trusting)
    trusting.cleanup()
    with pytest.raises(InvalidOptionError, match="not a key"):
        make(trusted_keys=["nonsense"])
    imported = CliRunner().invoke(app, ["key", "import"], input=secret)
    assert 0 == imported.exit_code
    again = make()
    assert Custom("theirs") == again.retrieve("a")


def test_what_cannot_be_serialised_is_refused_at_once(make: Make) -> None:
    """Not later, in the background, where no caller could get the error."""
    manager = make()
    manager.store("a", 1)
    with (
        Path(os.devnull).open() as file,
        pytest.raises(UnsupportedTypeError) as caught,
    ):
        manager.store("a", file, "hot")
    assert isinstance(caught.value, TypeError)
    with pytest.raises(UnsupportedTypeError):
        manager.store("a", (i for i in range(3)), "hot")
    assert 1 == manager.retrieve("a")


def test_a_pickle_is_never_written_for_a_typed_value(make: Make) -> None:
    """What has a codec of its own needs no key and no trust."""
    manager = make()
    manager.store("a", {"x": [np.arange(3), "text", None, 1.5, (1, 2)]}, "cold")
    manager.flush()
    folder = Path(manager._services.settings.storage_path or "")
    data = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert pickle.dumps(np.dtype("int64"))[2:] not in data
    assert b"numpy.core" not in data
