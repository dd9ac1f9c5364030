"""What a node says of itself is shown to people: it controls no terminal, no page and no log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from click.testing import CliRunner
from tests.promises.test_hostile_text import active, controls
from tests.support.nodes.proxy import NodeProxy

from memories import DistributedMemoryManager
from memories.cli.app import app
from memories.cluster.client.resp import ReplyError
from memories.cluster.local import LocalServer

pytestmark = pytest.mark.server
HOSTILE = (
    b"\x1b[2J\x1b]0;t\x07",
    b"<img onerror=alert(1)>",
    "\u202e\u2066\x9b31m".encode(),
    b"[/x]\t\x00",
)


class LyingProxy(NodeProxy):
    """Replaces what a server says of itself by other characters, as many as there were."""

    text = b""

    def _worse(self, block: bytes, passed: int) -> bytes:
        for field in (b"role:", b"valkey_version:", b"redis_version:", b"maxmemory_policy:"):
            start = block.find(field)
            if start >= 0:
                start += len(field)
                end = block.index(b"\r\n", start)
                lie = (self.text * (end - start))[: end - start]
                block = block[:start] + lie + block[end:]
        return block


@pytest.fixture(params=HOSTILE, ids=range(len(HOSTILE)))
def liar(node: LocalServer, request: pytest.FixtureRequest) -> Iterator[LyingProxy]:
    """A server whose texts are hostile."""
    proxy = LyingProxy(node.port)
    proxy.text = request.param
    yield proxy
    proxy.close()


def test_no_text_of_a_node_controls_anything(
    liar: LyingProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Commands, as text and as JSON, a page, errors and the log."""
    caplog.set_level(logging.DEBUG, logger="memories")
    with DistributedMemoryManager(
        "1 MB",
        "1 MB",
        "10 MB",
        nodes=[liar.name],
        replication_factor=1,
        migration=False,
        prefetch="off",
    ) as manager:
        manager.store_distributed("key", 1)
        (state,) = manager.get_node_status().values()
        assert [] == controls(json.dumps(state, ensure_ascii=False))
        assert not liar.text.isascii() or state["role"]
        served = manager.dashboard()
        page = served.url.partition("#")[0]
        with urlopen(f"{page}events?interval=0.1", timeout=30) as stream:
            lines = (line.decode() for line in stream)
            shown = next(line for line in lines if '"nodes":{' in line)
        assert [] == controls(shown)
        with urlopen(f"{page}metrics", timeout=30) as answer:
            assert [] == active(answer.read().decode())
        served.stop()
    for command in (("cluster", "status", liar.name), ("cluster", "status", "--json", liar.name)):
        result = CliRunner().invoke(app, command)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert [] == controls(result.output), command
    for record in caplog.records:
        assert [] == controls(record.getMessage())


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_of_a_node_is_one_line(text: bytes) -> None:
    """It is in errors, states and logs; a node may send 64 KB of it."""
    error = ReplyError("ERR", text.decode() * 5000, "node:1")
    assert [] == controls(str(error))
    assert "\n" not in str(error)
    assert len(str(error)) < 400
