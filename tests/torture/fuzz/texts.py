"""Damages the texts that a store and its user keep: telemetry, and configuration files."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from click.testing import CliRunner
from tests.promises.test_hostile_text import active, controls, injected
from tests.torture.fuzz.damage import damaged_bytes, damaged_document

from memories import MemoriesError, MemoryManager
from memories.cli.app import app
from memories.observe.analytics.report import write_report
from memories.observe.analytics.telemetry_files import (
    SERIES_FILE,
    TELEMETRY_FILE,
    read_document,
    read_series,
)
from memories.observe.metrics.prometheus import prometheus_text

NAMES = (TELEMETRY_FILE, SERIES_FILE)


class Telemetry:
    """The files that a writer leaves for other processes; an input is a name and the bytes."""

    def prepare(self, folder: Path) -> None:
        """Keep what a living writer has written."""
        self.store, self.page = folder / "store", folder / "page.html"
        with MemoryManager("1 MB", "1 MB", "20 MB", True, storage_path=self.store) as manager:
            manager.enable_analytics(0.05)
            for number in range(12):
                manager.store(f"k{number}", np.arange(20), "cold", metadata={"note": "text"})
                manager.retrieve(f"k{number}")
                manager.migrate(f"k{number}", "warm")
            manager.pin("k1")
            manager._services.telemetry._refresh_files()
            shutil.copytree(self.store, folder / "kept")
        shutil.rmtree(self.store)
        (folder / "kept").rename(self.store)
        self.whole = {name: (self.store / name).read_bytes() for name in NAMES}

    def damaged(self, rng: random.Random) -> bytes:
        """Return one of the files with other things in it."""
        name = rng.choice(NAMES)
        if rng.random() < 0.2:
            data = damaged_bytes(self.whole[name], rng)
        else:
            data = json.dumps(damaged_document(json.loads(self.whole[name]), rng)).encode()
        return msgspec.msgpack.encode([name, data])

    def attempt(self, data: bytes) -> bool:
        """Show the file in every way there is."""
        name, content = msgspec.msgpack.decode(data, type=tuple[str, bytes])
        for other, whole in self.whole.items():
            (self.store / other).write_bytes(content if other == name else whole)
        for command in (("top", "--once"), ("top", "--once", "--json"), ("stat",), ("report",)):
            arguments = [*command, str(self.store), *[str(self.page)] * (command == ("report",))]
            result = CliRunner().invoke(app, arguments)
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert [] == controls(result.output), command
        try:
            document, series = read_document(self.store), read_series(self.store)
            assert document is not None
            write_report(self.page, document, series)
        except MemoriesError:
            return False
        assert [] == active(self.page.read_text())
        assert [] == injected(prometheus_text(document))
        return True

    def close(self) -> None:
        """Nothing is open."""


LINES = (
    "hot_memory_size = '2 MB'", "warm_memory_size = 0.002", "cold_memory_size = '1 GB'",
    "storage_path = 'store'", "[compression]", "cold = 'zstd'", "[migration]", "max_idle_time = 5",
    "[eviction_policy]", "hot = 'lru'", "durability = 'full'", "on_full = 'evict'",
    "glacier_memory_enabled = true", "glacier_url = 'bucket'", "[tool.memories]", "[tool]",
    "namespace = 'x'", "nodes = ['127.0.0.1:1']", "exit_flush_seconds = 3",
)  # fmt: skip
VALUES = (
    "1", "-1", "1e400", "nan", "inf", "9" * 5000, "0x7fffffffffffffff", "true", "'x'", "''", "[]",
    "[[[[1]]]]", "{}", "{a = {b = 1}}", "1979-05-27T07:32:00Z", "'\\u001b[2J'", '"\\u0000"',
    '"../../x"', "'1 TB'", "'-5 MB'", "'1e99 GB'", "[" * 3000, "{a=" * 500, "'s3'", "['lru', 1]",
)  # fmt: skip


class Configuration:
    """A configuration file; an input is its name and its bytes."""

    def prepare(self, folder: Path) -> None:
        """Make the directories of a project and of a user."""
        self.folder = folder
        os.environ["XDG_CONFIG_HOME"] = str(folder / "config")

    def damaged(self, rng: random.Random) -> bytes:
        """Return lines of a file in any order, with values of any kind."""
        lines = rng.sample(LINES, rng.randint(1, 6))
        for at, line in enumerate(lines):
            if "=" in line and rng.random() < 0.5:
                lines[at] = f"{line.partition('=')[0]}= {rng.choice(VALUES)}"
        data = "\n".join(lines).encode()
        if rng.random() < 0.2:
            data = damaged_bytes(data, rng)
        name = rng.choice(["memories.toml", "pyproject.toml", "config/memories/config.toml"])
        return msgspec.msgpack.encode([name, data])

    def attempt(self, data: bytes) -> bool:
        """Show the options, and make a manager without arguments."""
        name, content = msgspec.msgpack.decode(data, type=tuple[str, bytes])
        project = self.folder / "project"
        for one in (project, self.folder / "config"):
            shutil.rmtree(one, ignore_errors=True)
        path = (self.folder if "/" in name else project) / name
        project.mkdir()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.chdir(project)
        result = CliRunner().invoke(app, ["config"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert [] == controls(result.output)
        options: dict[str, Any] = {}
        if b"_memory_size" not in content:
            options = {f"{tier}_memory_size": "1 MB" for tier in ("hot", "warm", "cold")}
        try:
            with MemoryManager(**options) as manager:
                manager.store("key", "value")
                assert "value" == manager["key"]
        except MemoriesError:
            return False
        return True

    def close(self) -> None:
        """Leave the directories, which are removed."""
        os.chdir("/")


TARGETS = {"telemetry": Telemetry, "configuration": Configuration}
