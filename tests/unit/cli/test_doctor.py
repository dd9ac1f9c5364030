"""doctor, bench and completion: facts about the machine, with advice where something is wrong."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from memories import MemoryManager
from memories.backends.disk.file_system import is_in_ram
from memories.cli.doctor import machine, remote
from memories.cli.doctor.result import Level
from memories.cluster.permissions import needed_permissions

from .conftest import Run

BAD_ADVICE = {"name", "level", "what", "advice"}


def findings(run: Run, *arguments: object) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code and the findings by name."""
    result = run("doctor", "--json", *arguments)
    return result.exit_code, {one["name"]: one for one in json.loads(result.stdout)["findings"]}


def test_a_healthy_store_has_nothing_wrong(run: Run, store: Path) -> None:
    """Every finding has a level and words, and nothing is left behind."""
    before = sorted(store.rglob("*"))
    code, found = findings(run, store)
    assert 0 == code
    assert all(set(one) == BAD_ADVICE and one["what"] for one in found.values())
    assert {"ok", "warn"} >= {one["level"] for one in found.values()}
    assert {"disk speed", "disk space", "file system", "memory", "clock", "gpu"} <= set(found)
    assert "5 keys in cold" in found["store"]["what"]
    assert before == sorted(store.rglob("*"))


def test_what_could_be_better_comes_with_advice(run: Run) -> None:
    """A warning without a remedy is noise."""
    _, found = findings(run)
    assert all(one["advice"] for one in found.values() if one["level"] != "ok")


def test_a_store_in_use_names_its_process(run: Run, tmp_path: Path) -> None:
    """The first question is which process holds it."""
    with MemoryManager(0.001, 0.001, 1, storage_path=tmp_path):
        assert f"pid {os.getpid()}" in findings(run, tmp_path)[1]["writer"]["what"]
    assert "not open" == findings(run, tmp_path)[1]["writer"]["what"]


def test_the_sizes_of_the_store_are_judged(run: Run, tmp_path: Path) -> None:
    """The defaults say nothing of a store that was given others."""
    with MemoryManager("3 MB", "4 MB", "5 MB", storage_path=tmp_path):
        found = findings(run, tmp_path)[1]
        assert "hot and warm may take 7.0 MB (as its program set it)" in found["memory"]["what"]
        assert ("ok", "ok") == (found["memory"]["level"], found["cold size"]["level"])
    found = findings(run, tmp_path)[1]
    assert "cold may take 5.0 MB (as its last program set it)" in found["cold size"]["what"]
    disk = os.statvfs(tmp_path)
    too_much = f"{20 * disk.f_blocks * disk.f_frsize} B"
    with MemoryManager("3 MB", "4 MB", too_much, storage_path=tmp_path):
        pass
    found = findings(run, tmp_path)[1]
    assert "warn" == found["cold size"]["level"]
    assert "by default" in findings(run)[1]["memory"]["what"]


def test_a_store_in_ram_is_called_so(run: Run) -> None:
    """Its cold tier saves no memory, and a reboot loses it."""
    if not is_in_ram(Path("/dev/shm")):
        pytest.skip("/dev/shm is not in RAM here")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        with MemoryManager("1 MB", "1 MB", "5 MB", storage_path=folder):
            pass
        found = findings(run, folder)[1]["file system"]
    assert ("warn", True) == (found["level"], "is in RAM (tmpfs)" in found["what"])
    assert "/var/tmp" in found["advice"]


def test_every_extra_is_looked_for() -> None:
    """An extra that is not listed would be missed by no check."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))
    extras = set(project["project"]["optional-dependencies"]) - {"all"}
    assert extras == set(machine.EXTRAS)


def test_a_place_that_is_no_store_is_bad(run: Run, tmp_path: Path) -> None:
    """With an exit code for a script."""
    code, found = findings(run, tmp_path / "none")
    assert (1, "bad") == (code, found["store"]["level"])


def test_broken_configuration_is_a_finding_and_no_crash(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor is called when something is broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memories.toml").write_text("hot_memry_size = 1")
    code, found = findings(run)
    assert (1, "bad") == (code, found["configuration"]["level"])
    assert "hot_memory_size" in found["configuration"]["what"]


def test_a_key_file_that_others_can_read_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that reads it can sign code that runs as this user."""
    path = tmp_path / "keys"
    path.write_text("x")
    monkeypatch.setenv("MEMORIES_KEY_FILE", str(path))
    path.chmod(0o644)
    assert Level.BAD is machine._key_file().level
    path.chmod(0o600)
    assert Level.FINE is machine._key_file().level


def test_an_archive_is_asked_and_its_credentials_looked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory needs none; a bucket without any is said to have none."""
    _, found = findings(run, "--glacier", str(tmp_path))
    assert ("none needed", "ok") == (found["credentials"]["what"], found["archive"]["level"])
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in remote.CHAINS["s3"][0]:
        monkeypatch.delenv(name, raising=False)
    assert Level.WARN is remote._credentials("s3://bucket/x").level
    monkeypatch.setenv("AWS_PROFILE", "me")
    assert "AWS_PROFILE" in remote._credentials("s3a://bucket/x").what


@pytest.mark.parametrize(
    ("version", "level"), [("7.2.5", Level.FINE), ("5.0.1", Level.WARN), (None, Level.BAD)]
)
def test_a_node_says_its_version(version: str | None, level: Level) -> None:
    """Over a real socket, from a server that answers like one."""
    body = f"# Server\r\nredis_version:{version}\r\n" if version else ""
    reply = f"${len(body)}\r\n{body}\r\n" if version else "-NOAUTH Authentication required.\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(100).endswith(b"INFO\r\n$6\r\nserver\r\n")
                connection.sendall(reply.encode())
                count = len(needed_permissions(clustered=False)) if version else 0
                received = b""
                while count and not received.endswith(b"TRACKING\r\n$3\r\nOFF\r\n"):
                    received += connection.recv(10_000)
                connection.sendall(b"-ERR no arguments\r\n" * count)  # And not NOPERM.

        thread = threading.Thread(target=serve)
        thread.start()
        found = remote._node(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert level is found.level


def test_a_node_that_is_not_there_is_bad() -> None:
    """Within a few seconds, and with its address."""
    assert "not a port" in remote._node("localhost:99999").what
    with socket.socket() as held:  # Bound, so that no other process listens there meanwhile.
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        found = remote._node(f"127.0.0.1:{port}")
    assert Level.BAD is found.level
    assert str(port) in found.what


def test_bench_measures_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """The results have units, and each was measured."""
    document = json.loads(run("bench", "--json", "--megabytes", 1, "--at", tmp_path).stdout)
    assert {"us", "MB/s"} == {one["unit"] for one in document.values()}
    assert all(one["value"] > 0 for one in document.values())
    assert 8 == len(document)
    assert [] == list(tmp_path.iterdir())
    assert 8 == len(run("bench", "--megabytes", 1, "--at", tmp_path).stdout.splitlines())


def test_completion_is_a_program_that_bash_accepts(run: Run) -> None:
    """Syntax that the shell refuses would break every new terminal."""
    script = run("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=240)
    for shell in ("zsh", "fish"):
        assert "_MEMORIES_COMPLETE" in run("completion", shell).stdout


def test_the_shell_is_given_the_commands(run: Run) -> None:
    """What the script asks is answered."""
    environment = {
        **os.environ, "_MEMORIES_COMPLETE": "bash_complete", "COMP_WORDS": "memories do",
        "COMP_CWORD": "1",
    }  # fmt: skip
    program = "import sys; sys.argv[0] = 'memories'; from memories.cli import main; main()"
    run_ = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "plain,doctor\n" == run_.stdout
