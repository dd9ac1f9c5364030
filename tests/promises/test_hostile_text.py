"""What is shown: no key, metadata, telemetry or name controls a terminal, a page or a log.

All of it may come from another user: a store, its telemetry file, a node, an archive.
"""

from __future__ import annotations

import copy
import html
import json
import logging
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from memories import CorruptDataError, MemoriesError, MemoryManager
from memories.cli.app import app
from memories.foundation.logging import logger
from memories.observe.analytics.report import write_report
from memories.observe.analytics.telemetry_files import TELEMETRY_FILE, read_document
from memories.observe.metrics.prometheus import prometheus_text

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "\x1b]0;title\x07\x1b[2J\x9b31m",
    "\u202egnp.exe\u2066",
    "line\nMALFORMED 1\r\tend",
    "[/x] [red] [link=file:///etc/passwd]a[/link]",
    "$\\frac{1$ ${HOME} %s %n {0!r} {{x}}",
    "javascript:alert(1)",
]
FORBIDDEN = [chr(n) for n in (*range(9), *range(11, 32), *range(127, 160))]
FORBIDDEN += ["\u202a", "\u202b", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store whose keys and metadata are hostile, with its last telemetry."""
    path = tmp_path_factory.mktemp("hostile") / "store"
    with MemoryManager(
        "1 MB", "1 MB", "20 MB", True, storage_path=path, migration=False, prefetch="off"
    ) as manager:
        manager.enable_analytics(0.05)
        for text in HOSTILE:
            manager.store(text, text, "cold", metadata={"note": text})
            manager.store(f"{text}/array", np.arange(20), "cold", metadata={"note": [text]})
            for _ in range(5):
                manager.retrieve(text)
            manager.migrate(text, "warm")
        manager._services.telemetry._refresh_files()
        shutil.copytree(path, path.with_name("copy"))
    return path


def controls(text: str) -> list[str]:
    """Return the characters that a terminal would obey."""
    return sorted({character for character in text if character in FORBIDDEN})


class Tags(HTMLParser):
    """Collects what a page would run."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("img", "iframe", "object", "embed", "link", "base", "form", "a"):
            self.active += [f"{tag} {value}" for _, value in attrs if value and "alert" in value]
        self.active += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script" and "alert(1)" in data:
            self.active.append(data)


def active(page: str) -> list[str]:
    parser = Tags()
    parser.feed(page)
    return parser.active


def injected(metrics: str) -> list[str]:
    """Return the lines that a text brought into the metrics; only a program reads these."""
    return [
        line for line in metrics.split("\n") if line and not line.startswith(("memories_", "# "))
    ]


def run(*arguments: object) -> str:
    """Return all that a command prints, on both streams."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return str(result.output)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_key_or_metadata_controls_the_terminal(store: Path, text: str) -> None:
    """In any command that shows them, as text and as JSON; errors included."""
    commands = [
        ("ls", store), ("ls", "-l", store), ("stat", store), ("stat", store, text),
        ("explain", store, text), ("get", store, f"{text}/absent"),
        ("explain", store, f"{text}/absent"), ("stat", store, f"{text}/absent"),
        ("rm", store, f"{text}/absent"), ("move", store, f"{text}/absent", "cold"),
        ("pin", store, f"{text}/absent"), ("check", store), ("top", "--once", store),
        ("top", "--once", "--filter", text, store), ("ls", "--json", store),
        ("stat", "--json", store, text), ("top", "--json", "--once", store),
        ("explain", "--json", store, text), (text,), ("ls", f"/{text}"), ("snapshot", "ls", text),
        ("cluster", "status", text), ("simulate", text), ("advise", f"/{text}"),
    ]  # fmt: skip
    for command in commands:
        assert [] == controls(run(*command)), command


@pytest.mark.parametrize("text", HOSTILE)
def test_no_archive_snapshot_or_configuration_controls_the_terminal(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys, metadata, the host of a writer, names of objects, options: what others can write."""
    path, url, file = tmp_path / "store", tmp_path / "bucket", tmp_path / "snapshot"
    with MemoryManager(
        "1 MB",
        "1 MB",
        "20 MB",
        True,
        storage_path=path,
        glacier_url=str(url),
        migration=False,
        prefetch="off",
    ) as manager:
        manager.store(text, np.arange(90_000), "glacier", metadata={"note": text})
        manager.store(f"{text}/lost", np.arange(90_000) + 1, "glacier")
        manager.store(f"{text}/cold", text, "cold", metadata={text[:20]: text})
        manager.create_snapshot(file)
        lost = manager._hierarchy.catalog.journal.lookup(f"{text}/lost")
        assert lost is not None
    bucket = url / "memories-1"
    (bucket / "objects" / lost.place[:16].hex()).unlink(missing_ok=True)
    (bucket / "objects" / "zz[red]").write_bytes(text.encode() * 20)
    lock = bucket / "lock" / "writer"
    lease = json.loads(lock.read_bytes())
    lock.write_text(json.dumps({**lease, "host": text, "released": True}))
    printed = []
    for command in (
        ("adopt", url), ("adopt", "--json", url), ("snapshot", "inspect", "--keys", file),
        ("snapshot", "verify", file), ("snapshot", "diff", file, file),
        ("snapshot", "ls", tmp_path),
        ("snapshot", "extract", file, f"{text}/absent"), ("check", path), ("ls", "-l", path),
    ):  # fmt: skip
        printed.append(run(*command))
        assert [] == controls(printed[-1]), command
    assert "kind" in printed[0] and "missing" in printed[0]
    monkeypatch.chdir(tmp_path)
    for content in (f"{json.dumps(text)} = 1", f"on_full = {json.dumps(text)}", text):
        (tmp_path / "memories.toml").write_text(content)
        with pytest.raises(MemoriesError) as refused:
            MemoryManager("1 MB", "1 MB", "1 MB")
        assert [] == controls(str(refused.value)), content
        assert [] == controls(run("doctor", "--json")), content


def leaves(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the texts of a document are."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in items:
        if isinstance(value, str):
            yield (*path, name)
        elif isinstance(value, (dict, list)):
            yield from leaves(value, (*path, name))


def planted(document: Any, path: tuple[Any, ...], text: str) -> Any:
    """Return a copy of a document with another text in one place."""
    changed = copy.deepcopy(document)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = text
    return changed


def test_no_telemetry_controls_a_terminal_or_a_page(store: Path, tmp_path: Path) -> None:
    """A text of the file, one after the other; the file is refused, or its text is shown."""
    assert plant(store, tmp_path, step=5)


@pytest.mark.torture
def test_no_text_of_telemetry_controls_anything(store: Path, tmp_path: Path) -> None:
    """The same for every text of the file."""
    assert plant(store, tmp_path, step=1) > 5


def plant(store: Path, tmp_path: Path, *, step: int) -> int:
    """Plant hostile texts; return how many of them a page has shown, escaped."""
    live = store.with_name("copy")
    document = json.loads((live / TELEMETRY_FILE).read_bytes())
    # Of lists the first two are enough: all others are shown by the same lines.
    places = [
        path for path in leaves(document) if not any(isinstance(n, int) and n > 1 for n in path)
    ]
    assert len(places) > 20
    shown = 0
    for number, path in enumerate(places[::step]):
        text = HOSTILE[number % len(HOSTILE)]
        other = tmp_path / "store"
        shutil.copytree(live, other)
        (other / TELEMETRY_FILE).write_text(json.dumps(planted(document, path, text)))
        key = HOSTILE[0]
        for command in (
            ("top", "--once", other), ("explain", other, key), ("stat", other), ("ls", other),
            ("stat", other, key), ("get", other, key), ("report", other, tmp_path / "r.html"),
        ):  # fmt: skip
            assert [] == controls(run(*command)), (path, command)
        try:
            changed = read_document(other)
        except CorruptDataError as error:
            assert [] == controls(str(error)), path
        else:
            assert changed is not None
            write_report(tmp_path / "r.html", changed, None)
            page = (tmp_path / "r.html").read_text()
            assert [] == active(page), path
            assert [] == injected(prometheus_text(changed)), path
            shown += html.escape(text) in page
        shutil.rmtree(other)
    return shown


def test_no_key_is_active_in_a_page_of_the_manager(store: Path, tmp_path: Path) -> None:
    """The report, the cell of a notebook, and a plot, whose labels are not formulas."""
    shutil.copytree(store, tmp_path / "store")
    with MemoryManager(
        "1 MB",
        "1 MB",
        "20 MB",
        True,
        storage_path=tmp_path / "store",
        migration=False,
        prefetch="off",
    ) as manager:
        manager.enable_analytics(0.05)
        for text in HOSTILE:
            manager.retrieve(text)
            manager.migrate(text, "hot")
        manager.report(tmp_path / "report.html")
        for page in ((tmp_path / "report.html").read_text(), manager._repr_html_()):
            assert [] == active(page)
        assert [] == injected(prometheus_text(manager.telemetry()))
        pytest.importorskip("matplotlib")
        manager.plot_analytics(tmp_path / "plot.svg")
        assert [] == active((tmp_path / "plot.svg").read_text())


@pytest.mark.parametrize("text", HOSTILE)
def test_no_key_controls_an_error_or_a_log(
    store: Path, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is one line, of which a reader of the log can rely on every word."""
    shutil.copytree(store, tmp_path / "store")
    messages: list[str] = []
    caplog.set_level(logging.DEBUG, logger="memories")
    with MemoryManager(
        "1 MB", "1 MB", "20 MB", storage_path=tmp_path / "store", migration=False, prefetch="off"
    ) as manager:
        for call in (
            lambda: manager.retrieve(f"{text}/absent"),
            lambda: manager.delete(f"{text}/absent"),
            lambda: manager.migrate(text, text),  # type: ignore[arg-type]
            lambda: manager.store(text, lambda: None, "cold"),
            lambda: manager.store(text, 1, if_version=3),
            lambda: manager.store(text, np.zeros(10**7), "hot"),
            lambda: manager.store(text + "\0", 1),
            lambda: manager.store("key", 1, metadata={text: object()}),
            lambda: manager.retrieve(text, like=text),
            lambda: manager.create_snapshot(tmp_path / "no" / "folder"),
            lambda: manager.restore_snapshot(tmp_path / "no"),
            lambda: MemoryManager("1 MB", "1 MB", "1 MB", glacier_url=text),
            lambda: MemoryManager(**{text[:20]: 1}),
        ):
            try:
                call()
            except MemoriesError as error:
                messages.append(str(error))
        shown = [repr(manager), str(manager.explain(text)), str(manager.stats())]
        assert [] == controls("".join(shown))
    assert len(messages) > 6
    messages += [record.getMessage() for record in caplog.records if record.name == logger.name]
    for message in messages:
        assert [] == controls(message)
        assert "\n" not in message
