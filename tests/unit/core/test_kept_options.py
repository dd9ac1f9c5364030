"""The credentials of an archive are in no repr and no pickle of a manager."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from memories import MemoryManager
from memories.core.kept_options import KeptOptions

SECRET = "s3cr3t-access-key"
OPTIONS = {
    "secret_access_key": SECRET,
    "access_key_id": "an id",
    "region": "eu-central-1",
    "endpoint": "http://localhost:9",
    "endpoint_url": f"http://user:{SECRET}@localhost:9",
    "client_options": {"headers": SECRET},
}


def test_no_repr_and_no_pickle_of_a_manager_has_them(tmp_path: Path) -> None:
    """A pickle of a manager is stored in a cache, a log, a broker of tasks."""
    pytest.importorskip("obstore")
    with MemoryManager(
        "1 MB", "1 MB", "9 MB", True, storage_path=tmp_path / "s",
        glacier_url="s3://bucket/prefix", migration=False,
        storage_options={name: OPTIONS[name] for name in list(OPTIONS)[:4]},
    ) as manager:  # fmt: skip
        shown = [repr(manager), str(manager), manager._repr_html_(), str(manager.telemetry())]
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(manager, protocol)
            assert SECRET.encode() not in data
        shown += [repr(manager._services.settings), repr(manager._services.storage_options)]
        assert not [text for text in shown if SECRET in text]


def test_they_are_found_by_name_in_the_process_that_has_them() -> None:
    """A pickled manager that stays there, or goes to a fork, can read the archive."""
    kept = KeptOptions(OPTIONS)
    data = pickle.dumps(kept)
    assert SECRET.encode() not in data
    assert pickle.loads(data) is kept
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b"1" if pickle.loads(data).options == OPTIONS else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    assert b"1" == os.read(reader, 1)
    os.close(reader)
    os.close(writer)


def test_another_process_gets_only_what_is_no_secret(tmp_path: Path) -> None:
    """Where the archive is; the credentials come from the provider's usual chain."""
    (tmp_path / "pickled").write_bytes(pickle.dumps(KeptOptions(OPTIONS)))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).options)"
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pickled")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str({"region": "eu-central-1", "endpoint": "http://localhost:9"}) == shown.strip()


def compare(kept: KeptOptions, answers: multiprocessing.SimpleQueue[bool]) -> None:
    answers.put(kept.options == OPTIONS)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_that_is_started_with_a_manager_gets_them(method: str) -> None:
    """`multiprocessing` sends them by a pipe, to the process that it starts."""
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=compare, args=(KeptOptions(OPTIONS), answers))
    child.start()
    assert answers.get()
    child.join()
    answers.close()
