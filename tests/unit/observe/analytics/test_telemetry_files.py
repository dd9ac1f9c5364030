"""What a store tells other processes: small files, replaced whole, that cost the writer nothing."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.support.waiting import until

from memories import CorruptDataError, MemoryManager, StorageError
from memories.observe.analytics.telemetry_files import (
    SERIES_FILE,
    TELEMETRY_FILE,
    read_document,
    read_series,
    writer_lives,
)
from memories.observe.telemetry_service import HOT_KEYS

READER = """
import sys
from pathlib import Path
from memories.observe.analytics.telemetry_files import read_document, writer_lives
document = read_document(Path(sys.argv[1]))
print(writer_lives(document), document["tiers"]["hot"]["keys"], document["pid"])
"""


def test_another_process_reads_what_only_lives_in_ram(tmp_path: Path) -> None:
    """`memories top` sees hot and warm, which are in no file."""
    with MemoryManager(
        0.001, 0.001, 1, storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        manager.store("a", 1, tier="hot")
        until(lambda: (read_document(tmp_path) or {})["tiers"]["hot"]["keys"])
        command = [sys.executable, "-c", READER, str(tmp_path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        assert f"True 1 {os.getpid()}\n" == run.stdout
    document = read_document(tmp_path)
    assert document is not None
    assert (False, "closed") == (writer_lives(document), document["state"])


def test_the_file_is_written_only_when_something_happened(tmp_path: Path) -> None:
    """An idle program must not keep a disk awake."""
    with MemoryManager(
        0.001, 0.001, 1, storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        manager.store("a", 1)
        keep = manager._services.telemetry._refresh_files
        keep()
        os.utime(tmp_path / TELEMETRY_FILE, (1, 1))  # The next write may come in no time.
        keep()
        assert 1 == (tmp_path / TELEMETRY_FILE).stat().st_mtime
        manager.retrieve("a")
        keep()
        assert 1 < (tmp_path / TELEMETRY_FILE).stat().st_mtime


def test_a_reader_and_a_private_store_write_nothing(tmp_path: Path) -> None:
    """A reader changes nothing, and other processes cannot find a temporary directory."""
    with MemoryManager(0.001, 0.001, 1, storage_path=tmp_path) as manager:
        manager.store("a", 1, tier="cold")
    before = (tmp_path / TELEMETRY_FILE).read_bytes()
    with MemoryManager(storage_path=tmp_path, read_only=True) as reader:
        reader.retrieve("a")
    assert before == (tmp_path / TELEMETRY_FILE).read_bytes()


def test_the_series_are_kept_beside_the_store(tmp_path: Path) -> None:
    """What happened can be looked at when the program has long ended."""
    with MemoryManager(0.001, 0.001, 1, storage_path=tmp_path) as manager:
        assert read_series(tmp_path) is None
        manager.enable_analytics(interval=3600)
        manager.store("a", 1, tier="hot")
        manager.retrieve("a")
        kept = manager.get_analytics()
    series = read_series(tmp_path)
    assert series is not None
    assert set(kept) <= set(series)
    assert 1.0 == series["hot_hits"][-1]
    assert series["hit_rate"][0] != series["hit_rate"][0]


def test_a_directory_that_takes_no_file_costs_a_warning_and_no_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Telemetry is worth less than any value."""
    (tmp_path / TELEMETRY_FILE).mkdir(parents=True)
    (tmp_path / TELEMETRY_FILE / "x").touch()
    with caplog.at_level(logging.WARNING), MemoryManager(storage_path=tmp_path) as manager:
        manager.store("a", 1)
        assert 1 == manager["a"]
    assert 1 == sum("telemetry files in" in one.getMessage() for one in caplog.records)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"timestamps":[1],"a":[]}'])
def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path, text: str) -> None:
    """A reader must neither crash nor report an empty store."""
    (tmp_path / TELEMETRY_FILE).write_text(text)
    (tmp_path / SERIES_FILE).write_text(text)
    with pytest.raises(CorruptDataError, match=TELEMETRY_FILE):
        read_document(tmp_path)
    with pytest.raises(CorruptDataError, match=SERIES_FILE):
        read_series(tmp_path)


def test_what_is_in_ram_is_checked_too(tmp_path: Path) -> None:
    """Commands print it: a text in the place of a number is damage."""
    with MemoryManager(0.001, 0.001, 1, storage_path=tmp_path) as manager:
        manager.store("a", b"x", tier="hot")
        manager._services.telemetry._refresh_files()
        text = (tmp_path / TELEMETRY_FILE).read_text()
        document = json.loads(text)
        assert 1 == document["in_ram"]["values"] == document["in_ram"]["unwritten"]
        for name, wrong in (("values", "1"), ("listed", [["a", "attic", 1, True]])):
            spoilt = {**document, "in_ram": {**document["in_ram"], name: wrong}}
            (tmp_path / TELEMETRY_FILE).write_text(json.dumps(spoilt))
            with pytest.raises(CorruptDataError, match="in_ram"):
                read_document(tmp_path)
        (tmp_path / TELEMETRY_FILE).write_text(text)


def test_hot_keys_are_those_read_most(tmp_path: Path) -> None:
    """Among thousands that were read once."""
    with MemoryManager(0.1, 0.1, 1, migration=False, prefetch="off") as manager:
        for number in range(3000):
            manager.store(f"cool/{number}", number, tier="warm")
            manager.retrieve(f"cool/{number}")
        for name in ("b", "a"):
            manager.store(name, 1, tier="warm")
        hot = manager._services.telemetry._hot
        now = 0.0
        for _ in range(20):
            for _ in range(10):
                manager.retrieve("a")
            for _ in range(3):
                manager.retrieve("b")
            manager.stats()  # Credits the hits at the front, as every document does first.
            hot.sample(now := now + 1.0)
        found = hot.top(HOT_KEYS)
        assert [("a", 200), ("b", 60)] == [(one.key, one.hits) for one in found[:2]]
        assert [10.0, 3.0] == pytest.approx([one.rate for one in found[:2]], rel=0.1)
        assert found[2].rate < 1
        manager.delete("a")
        assert "a" not in [one.key for one in hot.top(HOT_KEYS)]


def test_the_document_is_json_and_names_no_value(tmp_path: Path) -> None:
    """Everything in it can be sent to a page; NaN has no place in JSON."""
    with MemoryManager(0.001, 0.001, 1, True, storage_path=tmp_path) as manager:
        for tier in ("hot", "warm", "cold", "glacier"):
            manager.store(tier, np.arange(3), tier=tier)
            manager.retrieve(tier)
        manager.migrate("cold", "glacier")
        document = manager._services.telemetry.document()
    assert document == json.loads(json.dumps(document, allow_nan=False))
    assert {"hot", "warm", "cold", "glacier"} == set(document["tiers"])
    assert ("cold", "cold", "glacier", "explicit") == tuple(
        document["latest_moves"][-1][name] for name in ("key", "source", "target", "cause")
    )
    assert abs(document["latest_moves"][-1]["at"] - time.time()) < 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_writes_no_telemetry(tmp_path: Path) -> None:
    """The file is the parent's to keep."""
    with MemoryManager(
        0.001, 0.001, 1, storage_path=tmp_path, migration=False, prefetch="off"
    ) as manager:
        manager.store("a", 1)
        manager._services.telemetry._refresh_files()
        before = (tmp_path / TELEMETRY_FILE).read_bytes()
        child = os.fork()
        if child == 0:
            try:
                manager.retrieve("a")
                manager.cleanup()
            finally:
                os._exit(0)
        assert (child, 0) == os.waitpid(child, 0)
        assert before == (tmp_path / TELEMETRY_FILE).read_bytes()


def test_a_directory_that_went_away_is_not_made_again(tmp_path: Path) -> None:
    """A test that removes its directory early must not find a file in it later."""
    path = tmp_path / "store"
    manager = MemoryManager(0.001, 0.001, 1, storage_path=path, migration=False, prefetch="off")
    manager.store("a", 1)
    shutil.rmtree(path)
    assert not manager._services.telemetry._refresh_files()
    assert not path.exists()
    manager.cleanup(flush=False)


@pytest.mark.parametrize("name", [TELEMETRY_FILE, SERIES_FILE])
def test_a_file_that_is_no_regular_file_is_not_read(tmp_path: Path, name: str) -> None:
    """A FIFO would hang the reader, a device would fill its memory, a link leads elsewhere."""
    read = read_document if name == TELEMETRY_FILE else read_series
    os.mkfifo(tmp_path / name)
    with pytest.raises(StorageError):
        read(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / "elsewhere").write_text("{}")
    for target in ("/dev/zero", tmp_path / "elsewhere"):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(StorageError):
            read(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / name).write_text("[" * 200_000)
    with pytest.raises(CorruptDataError):
        read(tmp_path)
