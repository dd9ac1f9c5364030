"""The dashboard over HTTP: what it answers, what it refuses, and that it ends with its manager."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from memories import InvalidOptionError, MemoryManager, StorageError
from memories.observe.dashboard import Dashboard, server
from memories.observe.dashboard.auth import Auth

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

AWKWARD = "a/b ?&#<script>alert(1)</script>"


@pytest.fixture
def manager() -> Iterator[MemoryManager]:
    """Return a manager with a few keys."""
    with MemoryManager(0.001, 0.001, 1, migration=False, prefetch="off") as made:
        made.store(AWKWARD, b"x" * 1000, tier="warm", pin=True)
        made.retrieve(AWKWARD)
        yield made


def ask(
    served: Dashboard, path: str, *, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Return status, text (or JSON) and headers of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(served.url.partition("#")[0] + path, data=data, headers=headers)
    try:
        with urlopen(request, timeout=240) as answer:
            status, text, found = answer.status, answer.read(), dict(answer.headers)
    except HTTPError as error:
        status, text, found = error.code, error.read(), dict(error.headers)
    if found.get("content-type") == "application/json":
        return status, json.loads(text), found
    return status, text.decode(), found


def events(served: Dashboard, count: int, query: str = "") -> list[dict[str, Any]]:
    """Return the first events of the stream."""
    found = []
    with urlopen(f"{served.url.partition('#')[0]}events{query}", timeout=240) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
                if len(found) == count:
                    break
    return found


def test_events_carry_what_is_known_now(manager: MemoryManager) -> None:
    """Several a second, each of its own moment."""
    with manager.dashboard() as served:
        first, second = events(served, 2, "?interval=0.1")
    assert 1 == first["tiers"]["warm"]["hits"]
    assert [AWKWARD] == [one["key"] for one in first["hot_keys"]]
    assert 0.05 < second["at"] - first["at"] < 5
    assert not first["may_act"]


def test_a_key_is_explained_whatever_it_looks_like(manager: MemoryManager) -> None:
    """Keys come from users."""
    with manager.dashboard() as served:
        status, found, _ = ask(served, f"explain?key={quote(AWKWARD, safe='')}")
        assert (200, "warm", True) == (status, found["tier"], found["pinned"])
        assert AWKWARD in found["text"] or repr(AWKWARD) in found["text"]
        status, found, _ = ask(served, "explain?key=absent")
        assert (404, True) == (status, "absent" in found["error"])
        assert 409 == ask(served, "explain?key=")[0]


def test_metrics_and_health_are_on_the_same_port(manager: MemoryManager) -> None:
    """One thing to open in a firewall."""
    with manager.dashboard() as served:
        status, text, headers = ask(served, "metrics")
        assert (200, True) == (status, 'memories_requests_total{tier="warm"' in text)
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (200, {"state": "open"}) == ask(served, "healthz")[:2]


def test_the_charts_begin_with_the_series_so_far(manager: MemoryManager) -> None:
    """A page that is opened later shows what was before; a dashboard enables the analytics."""
    with manager.dashboard() as served:
        series = ask(served, "series")[1]
        (document,) = events(served, 1)
    assert set(document["sample"]) == set(series)
    assert document["sample"]["timestamps"] >= series["timestamps"][0]
    assert abs(document["analytics_began"] + series["timestamps"][-1] - document["at"]) < 10
    assert [AWKWARD] == [one["key"] for one in document["pinned_keys"]]
    assert document["rss_bytes"] > 1_000_000


def test_analytics_of_the_program_go_on(manager: MemoryManager) -> None:
    """Opening a dashboard must not begin the series anew."""
    manager.enable_analytics(interval=3600)
    began = manager.telemetry()["analytics_began"]
    with manager.dashboard() as served:
        assert began == events(served, 1)[0]["analytics_began"]


def test_without_a_token_nothing_can_be_changed(manager: MemoryManager) -> None:
    """Without a token a request may only read."""
    with manager.dashboard() as served:
        body = {"action": "unpin", "key": AWKWARD}
        assert 403 == ask(served, "act", body=body)[0]
        assert 403 == ask(served, "act", body=body, Authorization="Bearer ")[0]
        assert 405 == ask(served, "act")[0]
    assert manager.explain(AWKWARD).pinned


def test_with_the_token_values_can_be_moved(manager: MemoryManager) -> None:
    """And only with the right one."""
    body = {"action": "unpin", "key": AWKWARD}
    with manager.dashboard(token="green") as served:
        right = {"Authorization": "Bearer green"}
        assert 403 == ask(served, "act", body=body, Authorization="Bearer blue")[0]
        assert 403 == ask(served, "act?token=green", body=body)[0]
        assert (200, {"tier": "warm"}) == ask(served, "act", body=body, **right)[:2]
        assert not manager.explain(AWKWARD).pinned
        body["action"] = "demote"
        assert {"tier": "cold"} == ask(served, "act", body=body, **right)[1]
        assert 400 == ask(served, "act", body={"action": "delete"}, **right)[0]
        assert 400 == ask(served, "act", body=[], **right)[0]
        gone = {"action": "pin", "key": "absent"}
        assert 404 == ask(served, "act", body=gone, **right)[0]


def test_a_request_to_an_unknown_name_is_refused(manager: MemoryManager) -> None:
    """A site that lets its own name resolve to 127.0.0.1 would read the keys otherwise."""
    with manager.dashboard() as served:
        for path in ("", "events", "explain?key=a", "metrics"):
            assert 403 == ask(served, path, Host="evil.example:80")[0]
        assert 200 == ask(served, "", Host="localhost:1234")[0]
    with manager.dashboard(hosts=["hub.example"]) as served:
        assert 200 == ask(served, "", Host="hub.example")[0]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("127.0.0.1:80", True), ("[::1]:80", True), ("localhost", True), ("LOCALHOST:1", True),
        ("10.0.0.7:8000", True), ("localhost.evil.example", False), ("", False), ("[::1", False),
    ],
)  # fmt: skip
def test_addresses_and_localhost_are_known(name: str, known: bool) -> None:
    """No name can be made up for an address."""
    assert known == Auth("127.0.0.1", None).knows(name)


def test_beyond_the_loopback_a_token_is_asked_of_readers_too() -> None:
    """Other machines are other people."""
    with pytest.raises(InvalidOptionError, match="token"):
        Auth("0.0.0.0", None)
    guard = Auth("0.0.0.0", "secret")
    assert not guard.admits({}, {}, act=False)
    assert guard.admits({}, {"token": "secret"}, act=False)
    assert guard.admits({"authorization": "Bearer secret"}, {}, act=True)


def test_the_page_names_nothing_that_is_not_beside_it(manager: MemoryManager) -> None:
    """It works under any prefix, and on a machine without a network."""
    with manager.dashboard() as served:
        _, page, headers = ask(served, "")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "//" not in page.replace("<!doctype html>", "")
        assert '="/' not in page
        for name in ("app.js", "style.css", "uPlot.iife.min.js", "uPlot.min.css"):
            assert f"static/{name}" in page
            assert 200 == ask(served, f"static/{name}")[0]
        assert 404 == ask(served, "static/..%2Fserver.py")[0]
        assert 404 == ask(served, "static/index.html")[0]


def test_it_ends_with_its_manager() -> None:
    """No thread and no port stays behind, and the event stream ends."""
    others = set(threading.enumerate())
    manager = MemoryManager(0.001, 0.001, 0.001)
    served = manager.dashboard()
    assert served.url in repr(served)
    assert served.url.partition("#")[0] in served._repr_html_()
    manager.cleanup()
    started = set(threading.enumerate()) - others
    assert not [one for one in started if one.name == "memories-dashboard"]
    with pytest.raises(OSError):
        urlopen(served.url, timeout=1)
    served.stop()


def test_a_reader_does_not_hold_it_up(manager: MemoryManager) -> None:
    """A browser tab that was left open must not keep a program from ending."""
    served = manager.dashboard()
    with urlopen(f"{served.url}events?interval=3600", timeout=240) as stream:
        assert stream.readline().startswith(b"data: ")
        began = time.monotonic()
        served.stop()
    assert time.monotonic() - began < 60


def test_a_server_that_ends_late_still_has_its_socket(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for requests until then; its thread would end with an error."""
    monkeypatch.setattr(server, "STOP_SECONDS", 0.0)
    served = manager.dashboard()
    served.stop()
    served.wait()  # An error in its thread fails the test, too.
    assert -1 == served._listener.fileno(), "the server closes it at its end"


def test_a_port_that_is_taken_is_said_to_be(manager: MemoryManager) -> None:
    """And several dashboards live side by side."""
    with manager.dashboard() as served, manager.dashboard() as other:
        assert served.port != other.port
        with pytest.raises(StorageError, match=str(served.port)):
            manager.dashboard(served.port)


def test_a_closed_manager_shows_no_page() -> None:
    """There is nothing to see."""
    manager = MemoryManager(0.001, 0.001, 0.001)
    manager.cleanup()
    with pytest.raises(RuntimeError):
        manager.dashboard()


def test_a_dashboard_may_be_far_behind_and_slows_no_other(manager: MemoryManager) -> None:
    """Ten clients, one of which never reads."""
    with manager.dashboard() as served:
        silent = urlopen(f"{served.url}events?interval=0.1", timeout=240)
        readers = [
            threading.Thread(target=events, args=(served, 3, "?interval=0.1")) for _ in range(9)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
        assert not any(reader.is_alive() for reader in readers)
        assert b"x" * 1000 == manager[AWKWARD]
        silent.close()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe", b"null", b"[]", b"3", b"[" * 100_000, b"{}", b'{"action": []}',
        b'{"action": {"a": 1}, "key": "k"}', b'{"action": "pin"}', b'{"action": "pin", "key": 3}',
        b'{"action": "eval", "key": "k"}', b'{"action": "pin", "key": "' + b"x" * 200_000 + b'"}',
    ],
    ids=range(14),
)  # fmt: skip
def test_a_malformed_request_is_answered_by_400(manager: MemoryManager, body: bytes) -> None:
    """It was answered by 500, with a traceback in the log."""
    with manager.dashboard(token="secret") as served:
        request = Request(
            served.url.partition("#")[0] + "act",
            data=body,
            headers={"Authorization": "Bearer secret"},
        )
        with pytest.raises(HTTPError) as caught:
            urlopen(request, timeout=240)
        assert 400 == caught.value.code
        assert json.loads(caught.value.read())["error"]


def test_the_token_is_in_no_repr_and_no_error(manager: MemoryManager) -> None:
    """A notebook stores what a cell shows, and a log what an error says."""
    with manager.dashboard(token="s3cr3t-token") as served:
        assert "s3cr3t-token" in served.url
        for shown in (repr(served), served._repr_html_(), str(served)):
            assert "s3cr3t-token" not in shown
    with pytest.raises(InvalidOptionError) as caught:
        manager.dashboard(token=b"s3cr3t-token")  # type: ignore[arg-type]
    assert "s3cr3t" not in str(caught.value)
