"""Master keys: where they are read, what they wrap, and what is said where they do not fit."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from memories.errors import EncryptionKeyError, InvalidOptionError, MemoriesError
from memories.sealing.blob import DataKey
from memories.sealing.master_key import (
    EncryptionKey,
    MasterSecret,
    append_version,
    create_file,
)

PLACE = b"p" * 16


@pytest.fixture
def file(tmp_path: Path) -> Path:
    create_file(tmp_path / "key", "prod")
    return tmp_path / "key"


def text_of(*secrets: MasterSecret) -> str:
    return "\n".join(["# a comment", *(one.text for one in secrets), ""])


def test_a_file_a_variable_and_a_command_give_the_same_key(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one wraps, the others unwrap."""
    monkeypatch.setenv("THE_KEY", file.read_text())
    printing = [sys.executable, "-c", f"print(open({str(file)!r}).read())"]
    keys = [
        EncryptionKey.from_file(file),
        EncryptionKey.from_env("THE_KEY"),
        EncryptionKey.from_command(printing),
        EncryptionKey.parse(f"file:{file}"),
        EncryptionKey.parse("env:THE_KEY"),
    ]
    data_key = DataKey.new()
    for one in keys:
        assert one is not None
        wrapped = one.wrap(data_key, PLACE)
        assert ("prod", 1) == (wrapped.name, wrapped.version)
        for other in keys:
            assert other is not None
            assert data_key == other.unwrap(wrapped, PLACE)
    assert keys[0] == keys[3]
    assert keys[0] != keys[1]
    assert len({*keys}) == 3


def test_the_newest_version_wraps_and_the_older_ones_unwrap(file: Path) -> None:
    """A rotation changes what wraps, and loses nothing."""
    key, data_key = EncryptionKey.from_file(file), DataKey.new()
    first = key.wrap(data_key, PLACE)
    file.write_text(file.read_text().rstrip("\n"))  # An editor may have removed the end.
    assert 2 == append_version(file).version
    second = key.wrap(data_key, PLACE)
    assert ("prod", 2) == key.newest() == (second.name, second.version)
    assert data_key == key.unwrap(first, PLACE) == key.unwrap(second, PLACE)
    assert first.data != second.data


def test_what_does_not_fit_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key, another version, another secret of that name, another store."""
    key, data_key = EncryptionKey.from_file(file), DataKey.new()
    wrapped, given = key.wrap(data_key, PLACE), EncryptionKey.from_env("GIVEN")
    for secret, said in [
        (MasterSecret.new("test"), "'prod', and another one was given: env:GIVEN holds 'test'"),
        (MasterSecret.new("prod", 2), "version 1 of the key 'prod', and env:GIVEN holds version 2"),
        (MasterSecret.new("prod", 1), "is not the key with which"),
    ]:
        monkeypatch.setenv("GIVEN", secret.text)
        with pytest.raises(EncryptionKeyError, match=said):
            given.unwrap(wrapped, PLACE)
    with pytest.raises(EncryptionKeyError, match="is not the key with which"):
        key.unwrap(wrapped, b"q" * 16)
    for at in range(len(wrapped.data)):
        forged = bytearray(wrapped.data)
        forged[at] ^= 1
        with pytest.raises(EncryptionKeyError):
            key.unwrap(wrapped._replace(data=bytes(forged)), PLACE)
    with pytest.raises(EncryptionKeyError):
        key.unwrap(wrapped._replace(data=b""), PLACE)
    assert issubclass(EncryptionKeyError, MemoriesError)
    assert issubclass(EncryptionKeyError, PermissionError)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "secret",
        "memories-master-key-1:prod:1:short",
        "memories-master-key-1:prod:0:" + "A" * 43 + "=",
        "memories-master-key-1:prod:x:" + "A" * 43 + "=",
        "memories-master-key-1:a b:1:" + "A" * 43 + "=",
        # The processes that share the tests must give them the same names.
        pytest.param(text_of(MasterSecret.new("a"), MasterSecret.new("b")), id="two names"),
        pytest.param(text_of(MasterSecret.new("a"), MasterSecret.new("a")), id="a version twice"),
    ],
)
def test_a_text_that_is_no_key_is_refused_and_not_repeated(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors reach logs: they say what is wrong, and never what was given."""
    monkeypatch.setenv("GIVEN", text)
    with pytest.raises(EncryptionKeyError) as caught:
        EncryptionKey.from_env("GIVEN").newest()
    assert not text or text not in str(caught.value)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A variable that is not set, a file that is absent, a command that fails."""
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    for key, said in [
        (EncryptionKey.from_env("NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
        (EncryptionKey.from_file(tmp_path / "absent"), "absent"),
        (EncryptionKey.from_command(failing), "CalledProcessError"),
        (EncryptionKey.from_command([str(tmp_path / "absent")]), "No such file"),
    ]:
        with pytest.raises(EncryptionKeyError, match=said):
            key.newest()


def test_a_file_that_others_may_open_is_refused(file: Path, tmp_path: Path) -> None:
    """A key that others have read protects nothing."""
    file.chmod(0o640)
    with pytest.raises(EncryptionKeyError, match="chmod 600"):
        EncryptionKey.from_file(file).newest()
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(EncryptionKeyError, match="not a regular file"):
        EncryptionKey.from_file(tmp_path / "fifo").newest()


def test_a_key_file_is_for_its_owner_and_never_overwritten(file: Path) -> None:
    """What it encrypts would be lost with it."""
    before = file.read_bytes()
    assert 0o600 == file.stat().st_mode & 0o777
    with pytest.raises(EncryptionKeyError, match="not overwritten"):
        create_file(file, "prod")
    assert before == file.read_bytes()
    with pytest.raises(InvalidOptionError, match="cannot be the name"):
        MasterSecret.new("a:b")


class Kms:
    """A key service: it encrypts with a key of its own, and checks the context."""

    def __init__(self) -> None:
        self.kept: dict[bytes, tuple[bytes, Mapping[str, str]]] = {}

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        self.kept[token := os.urandom(16)] = (secret, dict(context))
        return token

    def unwrap(self, data: bytes, context: Mapping[str, str]) -> bytes:
        secret, known = self.kept[data]
        assert known == context
        return secret


def test_a_key_service_wraps_and_unwraps() -> None:
    """The master key never is in the process; the service gets the context to bind to."""
    kms, data_key = Kms(), DataKey.new()
    key = EncryptionKey.from_kms("alias/prod", wrap=kms.wrap, unwrap=kms.unwrap)
    wrapped = key.wrap(data_key, PLACE)
    assert ("alias/prod", 1, data_key) == (*key.newest(), key.unwrap(wrapped, PLACE))
    with pytest.raises(EncryptionKeyError, match="failed") as caught:
        key.unwrap(wrapped, b"q" * 16)
    assert isinstance(caught.value.__cause__, AssertionError)
    broken = EncryptionKey.from_kms("alias/prod", wrap=kms.wrap, unwrap=lambda data, _: data)
    with pytest.raises(EncryptionKeyError, match="something else"):
        broken.unwrap(wrapped, PLACE)
    other = EncryptionKey.from_kms("alias/test", wrap=kms.wrap, unwrap=kms.unwrap)
    with pytest.raises(EncryptionKeyError, match="'alias/prod', and another one"):
        other.unwrap(wrapped, PLACE)


def test_no_repr_and_no_pickle_has_the_secret(file: Path) -> None:
    """The object says where the key is."""
    secret = file.read_text().strip().rpartition(":")[2]
    key = EncryptionKey.from_file(file)
    for shown in (repr(key), repr(MasterSecret.new("a")), str(pickle.dumps(key))):
        assert secret not in shown
    assert key == pickle.loads(pickle.dumps(key))


@pytest.mark.parametrize("value", ["", "secret", "file:", "env:", "command:x", b"k" * 32, 5])
def test_the_option_says_where_the_key_is(value: object) -> None:
    """The key itself does not belong into a program; the error does not repeat it."""
    with pytest.raises(InvalidOptionError, match="says where the key is"):
        EncryptionKey.parse(value)
    with pytest.raises(InvalidOptionError, match="a list of a program"):
        EncryptionKey.from_command("vault read key")
