"""top, report and dashboard: a store watched from outside, without disturbing its writer."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from memories import KeyNotFoundError, MemoryManager
from memories.cli.telemetry_source import FileSource
from memories.cli.top.keys import TopView
from memories.cli.top.screen import STYLES, RecentBars, screen
from memories.observe.analytics.telemetry_files import TELEMETRY_FILE

from .conftest import Run

pytest.importorskip("rich")
from rich.color import Color
from rich.console import Console

KEYS = [
    {"key": "b", "tier": "hot", "size": 1, "hits": 9, "rate": 0.5},
    {"key": "a/x", "tier": "warm", "size": 3, "hits": 1, "rate": 2.0},
    {"key": "a/y", "tier": "warm", "size": 2, "hits": 5, "rate": 1.0},
]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """Return the directory of a store that this process has open."""
    with MemoryManager(
        0.001, 0.001, 1, storage_path=tmp_path / "s", migration=False, prefetch="off"
    ) as manager:
        manager.enable_analytics(interval=0.05)
        manager.store("warm/key \x1b[31m", b"x" * 1000, tier="warm")
        manager.store("cold/key", b"x" * 1000, tier="cold")
        for _ in range(10):
            manager.retrieve("warm/key \x1b[31m")
        manager.migrate("cold/key", "warm")
        manager._services.telemetry._refresh_files()
        yield tmp_path / "s"


def test_top_once_shows_what_lives_in_the_other_processes_ram(run: Run, live: Path) -> None:
    """Tiers, hot keys and moves; no key drives the terminal."""
    result = run("top", "--once", live)
    assert 0 == result.exit_code
    assert f"open pid {os.getpid()}" in result.stdout
    assert "warm/key \\x1b[31m" in result.stdout
    assert "\x1b" not in result.stdout
    assert "explicit" in result.stdout
    filtered = run("top", "--once", "--filter", "cold", live).stdout
    assert "warm/key" not in filtered


@pytest.mark.parametrize("text", ["[/x]", "[red]", "[link=file:///etc/passwd]a[/link]", "\x1b[2J"])
def test_no_field_is_markup_or_controls_the_terminal(
    run: Run, live: Path, tmp_path: Path, text: str
) -> None:
    """A key in brackets ended `top`; other fields come from a file that others may write."""
    document = json.loads((live / TELEMETRY_FILE).read_bytes())
    for field in ("state", "store", "host", "latest_failure"):
        document[field] = text
    for one in document["hot_keys"] + document["latest_moves"]:
        one["key"] = text
    for one in document["latest_moves"]:
        one["cause"] = text
    for one in document["tiers"].values():
        one["medium"] = text
    (tmp_path / "other").mkdir()
    shutil.copytree(live, tmp_path / "other", dirs_exist_ok=True)
    (tmp_path / "other" / TELEMETRY_FILE).write_text(json.dumps(document))
    result = run("top", "--once", tmp_path / "other")
    assert 0 == result.exit_code, result.output
    assert "\x1b" not in result.stdout
    assert text.replace("\x1b", "\\x1b")[:4] in result.stdout


def test_top_json_is_the_telemetry(run: Run, live: Path) -> None:
    """Documented and stable: a program may read it."""
    document = json.loads(run("top", "--once", "--json", live).stdout)
    assert {
        "version", "at", "state", "pid", "host", "tiers", "reads", "misses", "hit_rate_percent",
        "stored", "stored_bytes", "moves", "removed", "written", "latencies", "prefetch",
        "failures", "latest_failure", "hot_keys", "latest_moves",
    } <= set(document)  # fmt: skip
    assert (1, 10) == (document["version"], document["tiers"]["warm"]["hits"])


def test_top_needs_a_terminal_or_a_word(run: Run, live: Path, tmp_path: Path) -> None:
    """A pipe gets no screen."""
    assert 2 == run("top", live).exit_code
    assert 1 == run("top", "--once", tmp_path / "none").exit_code


def test_a_closed_store_shows_its_last_figures(run: Run, live: Path, store: Path) -> None:
    """And says whether they were its last by intent."""
    assert "closed" == json.loads(run("top", "--once", "--json", store).stdout)["state"]
    path = live / TELEMETRY_FILE
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    document = json.loads(path.read_bytes()) | {"pid": int(gone.stdout)}
    path.write_text(json.dumps(document))
    assert "gone" == json.loads(run("top", "--once", "--json", live).stdout)["state"]
    path.unlink()
    read = json.loads(run("top", "--once", "--json", live).stdout)
    assert ("read-only", 1) == (read["state"], read["tiers"]["cold"]["keys"])


def read_until(descriptor: int, words: str, seconds: float = 90.0) -> str:
    """Return what the terminal shows until `words` were shown."""
    shown, deadline = "", time.monotonic() + seconds
    while words not in shown:
        assert time.monotonic() < deadline, f"{words!r} was never shown: {shown[-2000:]}"
        if select.select([descriptor], [], [], 0.1)[0]:
            shown += os.read(descriptor, 65_536).decode("utf-8", "replace")
    return shown


def test_top_is_live_and_obeys_keys(live: Path) -> None:
    """In a terminal: a filter is typed, help is shown, q ends it and the screen is given back."""
    child, descriptor = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", COLUMNS="130", LINES="40", NO_COLOR="1")
        os.execv(sys.executable, [sys.executable, "-m", "memories", "top", str(live)])
    read_until(descriptor, "hot key")
    os.write(descriptor, b"?")
    shown = read_until(descriptor, "s sort")
    os.write(descriptor, b"/cold\r")
    shown += read_until(descriptor, "filter: cold")
    assert "\x1b[31m" not in shown
    os.write(descriptor, b"\x1b")
    time.sleep(0.3)
    os.write(descriptor, b"q")
    assert "\x1b[?1049l" in read_until(descriptor, "\x1b[?1049l")
    assert (child, 0) == os.waitpid(child, 0)
    os.close(descriptor)


def drawn(document: dict[str, Any], recent: RecentBars, width: int) -> list[str]:
    """Return the lines of the screen on a terminal of so many columns."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(screen(document, recent, TopView(), rows=5, width=width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 58, 80, 100, 140, 200])
def test_no_number_is_cut_on_a_narrow_terminal(live: Path, width: int) -> None:
    """Half a number is a wrong number: columns are left out, and keys are shortened."""
    document = dict(FileSource(live).document())
    tiers = {**document["tiers"]["hot"], "hits": 123_456_789, "keys": 9_876_543}
    document["tiers"] = dict.fromkeys(("hot", "warm", "cold", "glacier"), tiers)
    key = {"key": "region/" * 20, "tier": "glacier", "size": 3, "hits": 123_456_789, "rate": 98.7}
    document["hot_keys"] = [key]
    lines = drawn(document, RecentBars(), width)
    assert all(len(line) <= width for line in lines)
    assert 5 == "\n".join(lines).count("123,456,789")
    assert "98.7/s" in "\n".join(lines)
    assert lines[0].startswith("s  open pid ")


def test_top_shows_rates_between_two_states(live: Path) -> None:
    """Counts since the program began say nothing of what it does now."""
    before = FileSource(live).document()
    tier = before["tiers"]["warm"]
    after = {
        **before, "at": before["at"] + 2, "reads": before["reads"] + 5000,
        "stored": before["stored"] + 7,
        "tiers": {**before["tiers"], "warm": {**tier, "hits": tier["hits"] + 4000}},
    }  # fmt: skip
    recent = RecentBars()
    recent.add(before)
    assert {} == recent.per_second
    recent.add(after)
    assert [2500.0, 3.5, 0.0] == [recent.per_second[name] for name in ("reads", "stored", "moved")]
    text = "\n".join(drawn(dict(after), recent, 140))
    assert "reads 2,500.0/s  stored 3.5/s  moved 0.0/s" in text
    assert "2,000.0" in text
    recent.add(after)  # The same file again: no second has passed in it.
    assert 2500.0 == recent.per_second["reads"]


def test_the_colours_of_tiers_are_readable_on_black() -> None:
    """The plain blue of a terminal is nearly black. Contrast as WCAG 2 defines it."""
    for style in STYLES.values():
        red, green, blue = (
            value / 12.92 if value <= 0.04 else ((value + 0.055) / 1.055) ** 2.4
            for value in (part / 255 for part in Color.parse(style).get_truecolor())
        )
        assert (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) / 0.05 > 4.5, style


def test_keys_choose_what_is_shown() -> None:
    """s walks through the columns; / types a filter that letters do not leave."""
    view = TopView()
    assert ["a/x", "a/y", "b"] == [one["key"] for one in view.choose(KEYS)]
    view.press("s")
    assert ["b", "a/y", "a/x"] == [one["key"] for one in view.choose(KEYS)]
    for key in "/sq":
        view.press(key)
    assert ("sq", True, False) == (view.pattern, view.typing, view.ended)
    for key in ("\x7f", "\x7f", "a", "/", "\r"):
        view.press(key)
    assert ["a/y", "a/x"] == [one["key"] for one in view.choose(KEYS)]
    for key in "p?q":
        view.press(key)
    assert (True, True, True) == (view.paused, view.helping, view.ended)


@pytest.fixture
def in_ram(tmp_path: Path) -> Iterator[tuple[Path, MemoryManager]]:
    """Return the directory of an open store, and its manager: one value is only in RAM."""
    with MemoryManager(
        0.01, 0.01, 1, storage_path=tmp_path / "s", migration=False, prefetch="off"
    ) as manager:
        manager.store("only/ram", b"x" * 1000, tier="hot")
        manager.store("both", b"x" * 2000, tier="cold")
        manager.store("disk", b"x" * 3000, tier="cold")
        manager.migrate("both", "warm")
        manager._services.telemetry._refresh_files()
        yield tmp_path / "s", manager


def test_commands_know_what_is_only_in_the_ram_of_the_writer(
    run: Run, in_ram: tuple[Path, MemoryManager]
) -> None:
    """To deny a value that another process serves at this moment would be wrong."""
    store, pid = in_ram[0], os.getpid()
    said = run("explain", store, "only/ram")
    assert 0 == said.exit_code
    assert f"'only/ram' is in the RAM of pid {pid} (hot, " in said.stdout
    assert "and not on the disk" in said.stdout
    got = run("get", store, "only/ram")
    assert 5 == got.exit_code
    assert f"in the RAM of pid {pid} (hot, " in got.stderr
    stat = run("stat", store, "only/ram")
    assert f"tier      hot, in the RAM of pid {pid}" in stat.stdout
    assert "durable   no" in stat.stdout
    row = json.loads(run("stat", "--json", store, "only/ram").stdout)
    assert (pid, "hot", False) == (row["in_ram_of"], row["ram_tier"], row["durable"])
    listed = run("ls", store)
    assert "both\ndisk\n" == listed.stdout
    assert f"1 values of the store are only in the RAM of pid {pid}" in listed.stderr


def test_commands_say_that_a_value_on_the_disk_is_a_copy(
    run: Run, in_ram: tuple[Path, MemoryManager]
) -> None:
    """The writer answers from RAM, and the reader must not invent what would move the copy."""
    store, pid = in_ram[0], os.getpid()
    said = run("explain", store, "both").stdout
    assert f"'both' is in the RAM of pid {pid} (warm, " in said
    assert "has a copy on the disk:\n'both' is in cold: its moves are known to its writer" in said
    assert "This manager only reads" in said
    assert "cold -> warm (explicit)" in said
    assert "Migration is off" not in said
    stat = run("stat", store, "both").stdout
    assert f"tier      warm, in the RAM of pid {pid}\ntier      cold, a copy\n" in stat
    row = json.loads(run("explain", "--json", store, "both").stdout)
    assert ("cold", "warm", True) == (row["tier"], row["ram_tier"], row["durable"])
    assert "RAM" not in run("explain", store, "disk").stdout


def test_stat_shows_the_tiers_in_ram_too(run: Run, in_ram: tuple[Path, MemoryManager]) -> None:
    """What the process holds is most of what a user asks for."""
    store, pid = in_ram[0], os.getpid()
    result = run("stat", store)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [["hot", "1"], ["warm", "1"], ["cold", "2"]] == [row[:2] for row in rows]
    assert result.stdout.count(f"RAM of pid {pid}") == 2
    assert "1 of the values in RAM are not on the disk" in result.stderr
    ram = json.loads(run("stat", "--json", store).stdout)["ram"]
    assert (pid, 1) == (ram["pid"], ram["unwritten"])
    assert 1 == ram["tiers"]["hot"]["keys"]


def test_a_snapshot_says_what_it_lacks(
    run: Run, in_ram: tuple[Path, MemoryManager], tmp_path: Path
) -> None:
    """It is made from the disk: a backup that lacks a value must not look complete."""
    result = run("snapshot", "create", in_ram[0], tmp_path / "snapshot.bin")
    assert 0 == result.exit_code, result.output
    assert f"1 values that are only in the RAM of pid {os.getpid()} are not in it" in result.stderr


def test_an_absent_key_is_absent_if_all_of_the_ram_is_listed(
    run: Run, in_ram: tuple[Path, MemoryManager]
) -> None:
    """With many values in RAM the file only has their number, and so does the answer."""
    store, manager = in_ram
    result = run("explain", store, "nowhere")
    assert (3, True) == (result.exit_code, "'nowhere' is in no tier" in result.stderr)
    manager.store_many({f"many/{number}": number for number in range(1200)}, "warm")
    manager._services.telemetry._refresh_files()
    for command in ("explain", "get", "stat"):
        result = run(command, store, "many/7")
        assert 3 == result.exit_code
        assert "1,201 values that are only in its RAM: it may be one of them" in result.stderr
    manager.cleanup()
    result = run("explain", store, "many/7")
    assert "'many/7' is in cold" in result.stdout
    assert "RAM" not in result.stdout


def test_the_page_of_a_store_knows_the_ram_of_its_writer(
    in_ram: tuple[Path, MemoryManager],
) -> None:
    """Its explanations come from outside the process, like those of the commands."""
    source = FileSource(in_ram[0])
    assert f"in the RAM of pid {os.getpid()} (hot" in source.explain("only/ram")["text"]
    assert source.explain("both")["text"].startswith("It is in the RAM of pid ")
    with pytest.raises(KeyNotFoundError, match="'nowhere' is in no tier"):
        source.explain("nowhere")


def test_report_writes_a_page_from_the_files(run: Run, live: Path, tmp_path: Path) -> None:
    """Also about a process that is running somewhere else."""
    result = run("report", live, "-o", tmp_path / "r.html")
    assert (0, "") == (result.exit_code, result.stdout)
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "warm/key" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert 1 == run("report", live, "-o", tmp_path / "none" / "r.html").exit_code
    printed = run("report", live, "-o", tmp_path / "r.html", "--json").stdout
    assert {"store": str(live), "output": str(tmp_path / "r.html")} == json.loads(printed)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_dashboard_prints_its_address_and_ends_with_ctrl_c(live: Path, form: list[str]) -> None:
    """About a store of another process, read-only whatever the token."""
    pytest.importorskip("starlette")
    command = [sys.executable, "-m", "memories", "dashboard", str(live), *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        url = it.stdout.readline().strip()
        if form:
            printed = json.loads(url)
            url = printed.pop("url")
            assert {"store": str(live)} == printed
        with urlopen(f"{url}healthz", timeout=240) as answer:
            assert {"state": "open"} == json.loads(answer.read())
        with urlopen(f"{url}explain?key=cold/key", timeout=240) as answer:
            assert "cold" == json.loads(answer.read())["tier"]
        with urlopen(f"{url}metrics", timeout=240) as answer:
            assert b'memories_requests_total{tier="warm",result="hit"} 10' in answer.read()
        it.send_signal(signal.SIGINT)
        _, words = it.communicate(timeout=240)
    assert 130 == it.returncode, words
    assert "Traceback" not in words
