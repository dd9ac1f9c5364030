"""From what people have set up to a store: addresses, endpoints, profiles and credentials.

What works with boto3 works here, against a server that verifies signatures; what cannot work says
why at once, by an error of ours and not by a panic of the library beneath.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.buckets import seaweed
from tests.support.buckets.fixtures import s3, s3_proxy  # noqa: F401
from tests.support.buckets.proxy import MisbehavingProxy

from memories import InvalidOptionError, MemoryManager, RefusedError
from memories.backends.bucket.open_store import open_store
from memories.backends.bucket.options import split_options
from memories.backends.bucket.retry import RetryPolicy
from memories.backends.bucket.url import parse_url
from memories.foundation.optional_imports import MissingPackageError

ONCE = RetryPolicy(attempts=1)


@pytest.fixture(autouse=True)
def nothing_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide the credentials of the user who runs the tests; return an empty ~/.aws."""
    for name in (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT",
        "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ALLOW_HTTP",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home / ".aws"


@pytest.fixture
def locked() -> Iterator[seaweed.SeaweedServer]:
    """A server that takes signed requests only."""
    if reason := seaweed.missing():
        pytest.skip(reason)
    yield seaweed.shared_with_keys()


def url() -> str:
    return f"s3://{seaweed.BUCKET}/{secrets.token_hex(8)}"


def works(options: dict[str, object], where: str | None = None) -> bool:
    store = open_store(where or url(), options, ONCE)
    store.put("objects/a", [b"x"])
    return [b"x"] == [store.get(stat.name)[0] for stat in store.list("objects/")]


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("s3://bucket/a#b", "a#b"),
        ("s3://bucket/a%20b/#", "a b/#"),
        ("s3://bucket", ""),
        ("s3://bucket//a/", "a"),
        ("abfss://container@account.dfs.core.windows.net/a", "a"),
    ],
)
def test_a_prefix_is_everything_after_the_bucket(text: str, prefix: str) -> None:
    """A `#` began a fragment, and two archives shared one prefix."""
    assert prefix == parse_url(text).prefix
    assert not parse_url(text).private


@pytest.mark.server
def test_prefixes_that_differ_after_a_hash_are_two_archives(
    s3: seaweed.SeaweedServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    """In a bucket and in a directory."""
    where = url()
    for root, options in ((where, s3.storage_options()), (f"file://{tmp_path}/d", {})):
        for name in ("a#1", "a#2", "a"):
            store = open_store(f"{root}/{name}", options)
            assert [] == list(store.list("objects/"))
            store.put("objects/a", [name.encode()])
        for name in ("a#1", "a#2", "a"):
            assert name.encode() == open_store(f"{root}/{name}", options).get("objects/a")[0]
    assert b"a#1" == open_store(tmp_path / "d" / "a#1").get("objects/a")[0]


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "ftp://host", "http://", "http://a b", "s3"]
)
def test_an_endpoint_that_is_no_url_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str
) -> None:
    """The library beneath panicked, which no `except Exception` catches."""
    pytest.importorskip("obstore")
    with pytest.raises(InvalidOptionError, match="write http:// or https:// before the host"):
        open_store(url(), {"endpoint": endpoint})
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(InvalidOptionError, match="is not a URL"):
        MemoryManager(
            1,
            1,
            1,
            True,
            storage_path=tmp_path / "s",
            glacier_url=url(),
            migration=False,
            prefetch="off",
        )


def test_a_panic_of_the_library_is_an_error_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    """An endpoint that only looks like one; whatever panics, a manager and its threads go on."""
    pytest.importorskip("obstore")
    options = {"endpoint": "http://[half", "skip_signature": True, "region": "x"}
    with pytest.raises((RefusedError, InvalidOptionError)) as caught:
        open_store(url(), options, ONCE).get("objects/a")
    assert "\n" not in str(caught.value)
    capfd.readouterr()  # What the library itself has printed.


@pytest.mark.server
def test_credentials_and_endpoint_of_the_environment_are_used(
    locked: seaweed.SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_ENDPOINT_URL alone makes boto3 talk to another server, over http, too."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.KEYS[1])
    monkeypatch.setenv("AWS_ENDPOINT_URL", locked.endpoint)
    assert works({})
    assert works({"timeout": "20s"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", locked.endpoint)
    assert works({}), "the more special variable wins, as in boto3"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert works({"endpoint_url": locked.endpoint}), "an option wins over both"
    monkeypatch.setenv("AWS_ENDPOINT_URL", locked.endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    with pytest.raises(RefusedError, match="set allow_http"):
        works({})


@pytest.mark.server
@pytest.mark.parametrize("named", ["option", "variable", "default"])
def test_profiles_work_as_in_boto3(
    locked: seaweed.SeaweedServer,
    nothing_set_up: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
) -> None:
    """Keys, region and endpoint of a profile, without boto3."""
    name = "default" if named == "default" else "archive"
    section = "default" if named == "default" else f"profile {name}"
    (nothing_set_up / "credentials").write_text(
        f"[other]\naws_access_key_id = X\naws_secret_access_key = Y\n\n[{name}]\n"
        f"aws_access_key_id = {seaweed.KEYS[0]}\naws_secret_access_key = {seaweed.KEYS[1]}\n"
    )
    (nothing_set_up / "config").write_text(
        f"[{section}]\nregion = eu-west-3\nendpoint_url = {locked.endpoint}\n"
        "s3 =\n  max_concurrent_requests = 20\n"
    )
    if named == "variable":
        monkeypatch.setenv("AWS_PROFILE", name)
    assert works({"profile": name} if named == "option" else {})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "wrong")
    if named == "option":
        assert works({"profile": name}), "a profile that was asked for wins over the environment"
    else:
        with pytest.raises(RefusedError, match="check the credentials"):
            works({})


def test_a_profile_that_is_not_there_is_named(nothing_set_up: Path) -> None:
    """With those that are; the typo is in one of the two."""
    (nothing_set_up / "credentials").write_text("[one]\naws_access_key_id = X\n")
    (nothing_set_up / "config").write_text("[profile two]\nregion = r\n")
    with pytest.raises(InvalidOptionError, match=r"profile 'tow' is in neither .* one, two"):
        split_options("s3", {"profile": "tow"})
    (nothing_set_up / "config").write_text("garbage\n")
    with pytest.raises(InvalidOptionError, match="cannot be read as a profile file"):
        split_options("s3", {"profile": "one"})


def test_a_profile_that_only_boto3_understands_asks_for_it(
    nothing_set_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single sign-on and assumed roles are more than two files."""
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    (nothing_set_up / "config").write_text("[profile sso]\nsso_session = corp\n")
    with pytest.raises(MissingPackageError, match="pip install 'boto3"):
        split_options("s3", {"profile": "sso"})


@pytest.mark.server
def test_no_credentials_says_so(tmp_path: Path) -> None:
    """The library asks the machine's role, at an address that no user knows."""
    pytest.importorskip("obstore")
    with pytest.raises(RefusedError, match=r"no credentials were found.*AWS_ACCESS_KEY_ID"):
        MemoryManager(
            1, 1, 1, True, storage_path=tmp_path / "s", glacier_url=url(),
            storage_options={"endpoint": "http://127.0.0.1:9", "timeout": "2s"}, migration=False,
            prefetch="off",
        )  # fmt: skip


@pytest.mark.server
def test_keys_that_were_given_are_not_mixed_with_a_token_of_the_environment(
    locked: seaweed.SeaweedServer,
    s3_proxy: MisbehavingProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token belongs to the keys that it came with."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-other-keys")
    s3_proxy.port = locked.port
    options = {"key": seaweed.KEYS[0], "secret": seaweed.KEYS[1], "endpoint": s3_proxy.endpoint}
    open_store(url(), options, ONCE).put("objects/a", [b"x"])
    assert b"of-other-keys" not in s3_proxy.requests[-1].head
