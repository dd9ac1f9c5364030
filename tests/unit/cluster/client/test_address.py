"""Addresses: every form that users of Redis know, and secrets that stay secret."""

from __future__ import annotations

import ssl

import pytest
import redis

from memories.cluster.client.address import TLS, NodeAddress
from memories.errors import InvalidOptionError

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node1:6380", NodeAddress("node1", 6380)),
        ("node1", NodeAddress("node1", 6379)),
        ("10.0.0.7:7000", NodeAddress("10.0.0.7", 7000)),
        ("[::1]:7000", NodeAddress("::1", 7000)),
        ("::1", NodeAddress("::1", 6379)),
        ("redis://node1", NodeAddress("node1")),
        ("valkey://node1:7000/3", NodeAddress("node1", 7000, database=3)),
        ("redis://:pw@node1", NodeAddress("node1", password="pw")),
        ("redis://me:p%40%2F%3A@node1:1", NodeAddress("node1", 1, user="me", password="p@/:")),
        ("rediss://node1", NodeAddress("node1", tls=TLS())),
        (
            "valkeys://n:1?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            NodeAddress("n", 1, tls=TLS({"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False})),
        ),
        ("rediss://n?ssl_cert_reqs=none", NodeAddress("n", tls=TLS({"ssl_cert_reqs": "none"}))),
        (
            "redis://n?timeout=2.5&max_connections=9",
            NodeAddress("n", timeout=2.5, max_connections=9),
        ),
        ("unix:///run/v.sock?db=2", NodeAddress(path="/run/v.sock", database=2)),
        ("unix://me:pw@/run/v.sock", NodeAddress(path="/run/v.sock", user="me", password="pw")),
    ],
)
def test_every_usual_form_of_an_address_is_understood(text: str, expected: NodeAddress) -> None:
    """A URL from a configuration can be used as it is."""
    assert expected == NodeAddress.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "node:port", "node:0", "node:65536", "node 1", "http://node", "unix://run/x",
        f"me:{SECRET}@node:1", f"redis://me:{SECRET}@node:port", f"redis://me:{SECRET}@no de",
        f"redis://me:{SECRET}@node?x=1", f"redis://me:{SECRET}/x@node", f"redis://:{SECRET}#@n",
        f"redis://me:{SECRET}@node/five", f"unix://me:{SECRET}?@/run/x", "redis://user@node",
        f"rediss://:{SECRET}@n?ssl_cert_reqs=perhaps", f"redis://:{SECRET}@[::1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_showing_the_secret(text: str) -> None:
    """Errors end in logs that others read."""
    with pytest.raises(InvalidOptionError) as caught:
        NodeAddress.parse(text)
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_no_form_of_showing_an_address_has_its_password() -> None:
    """A node is named in errors, logs, states and repr; its password never is."""
    address = NodeAddress.parse(f"rediss://me:{SECRET}@node1:7000/2")
    shown = f"{address} {address!r} {address.name} {[address]!r} {address.at('b', 1)!r}"
    assert SECRET not in shown
    assert "node1:7000" == address.name


def test_another_node_of_a_cluster_gets_the_same_credentials() -> None:
    """MOVED names a host and a port only."""
    address = NodeAddress.parse("rediss://me:pw@node1:7000").at("node2", 7001)
    assert ("node2", 7001, "me", "pw") == (address.host, address.port, address.user, "pw")
    assert address.tls == TLS()


def test_options_of_tls_and_redis_py_hold_for_all_nodes() -> None:
    """Certificates, a context or a provider of credentials are given once, by redis-py's names."""
    context = ssl.create_default_context()
    assert TLS({}, context) == NodeAddress.parse("node1", tls=context).tls
    assert TLS() == NodeAddress.parse("node1", tls=True).tls
    assert TLS() == NodeAddress.parse("node1", ssl=True).tls
    assert NodeAddress.parse("node1", tls=False).tls is None
    secured = NodeAddress.parse("node1", ssl_ca_certs="/ca.pem", username="me", password="pw")
    assert (TLS({"ssl_ca_certs": "/ca.pem"}), "me") == (secured.tls, secured.user)
    own = NodeAddress.parse("rediss://node1?ssl_ca_certs=/own.pem", ssl_ca_certs="/ca.pem")
    assert TLS({"ssl_ca_certs": "/own.pem"}) == own.tls
    provider = redis.UsernamePasswordCredentialProvider("me", SECRET)
    address = NodeAddress.parse("node1", credential_provider=provider)
    assert {"credential_provider": provider} == address.options
    assert SECRET not in repr(address)


@pytest.mark.parametrize(
    "options",
    [
        {"tls": "yes"}, {"colour": 5}, {"timeout": 0}, {"timeout": "long"}, {"max_connections": -1},
        {"ssl_cert_reqs": "perhaps"}, {"db": "five"}, {"user": "me"},
    ],
)  # fmt: skip
def test_an_option_that_does_not_fit_is_refused(options: dict[str, object]) -> None:
    """At once, with its name, and not as an error of Python at the first connection."""
    with pytest.raises(InvalidOptionError):
        NodeAddress.parse("node1", **options)  # type: ignore[arg-type]


def test_a_scheme_without_tls_contradicts_options_of_tls() -> None:
    """A password must not be sent in the clear by a user who has asked for TLS."""
    with pytest.raises(InvalidOptionError, match="rediss"):
        NodeAddress.parse("redis://node1", tls=True)
    assert NodeAddress.parse("unix:///run/v.sock", tls=True).tls is None


def test_options_hold_where_the_text_says_nothing() -> None:
    """One password for all nodes is given once."""
    assert "pw" == NodeAddress.parse("node1", user="me", password="pw").password
    assert "own" == NodeAddress.parse("redis://me:own@node1", user="x", password="pw").password
    assert TLS() == NodeAddress.parse("node1:1", tls=TLS()).tls
