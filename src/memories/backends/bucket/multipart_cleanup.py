"""Finds and aborts multipart uploads that a killed writer has begun: their parts are billed.

obstore has no call for either, so these two requests of S3 are made and signed here. Where the keys
are those of a machine's role, boto3 is needed to get them.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from memories.backends.bucket.objectstore import Transient
from memories.backends.bucket.url import BucketUrl
from memories.foundation.clock import SystemClock
from memories.foundation.optional_imports import require

_TIMEOUT_SECONDS = 30.0
_MOST_BYTES = 8 << 20  # What a page of a listing may take.
_SAFE = "-._~"
_NOTHING = hashlib.sha256(b"").hexdigest()


class SigningKeys(NamedTuple):
    """What a request is signed with."""

    identity: str
    secret: str
    token: str | None


class MultipartUploads:
    """The uploads under a prefix that are under way, or were left so."""

    def __init__(
        self,
        url: BucketUrl,
        config: Mapping[str, Any],
        client: Mapping[str, Any],
        provider: Callable[[], Mapping[str, Any]] | None,
    ) -> None:
        plain = {name.removeprefix("aws_"): value for name, value in config.items()}
        self._region = str(plain.get("region", "us-east-1"))
        self._unsigned = _is_true(plain.get("skip_signature"))
        self._keys = None if self._unsigned else _keys(plain, provider)
        self._client = client
        self._prefix = f"{url.prefix}/" if url.prefix else ""
        host = f"https://s3.{self._region}.amazonaws.com"
        self._base = str(plain.get("endpoint", host)).rstrip("/")
        if not _is_true(plain.get("virtual_hosted_style_request")):
            self._base += f"/{url.host}"
        elif "endpoint" not in plain:
            self._base = f"https://{url.host}.s3.{self._region}.amazonaws.com"

    def abort(self, below: str, names: Collection[str] | None) -> list[str] | None:
        """Abort the uploads of `names` (None: of all) below `below`, and return whose those were.

        None is returned where that is unknown: there are no keys to sign with, or the service does
        not list uploads.

        Raises:
            Transient: the service did not answer.
        """
        if self._keys is None and not self._unsigned:
            return None
        listed = self._listed(self._prefix + below)
        if listed is None:
            return None
        aborted = []
        for key, upload in listed:
            name = key.removeprefix(self._prefix + below)
            if names is None or name in names:
                self._send("DELETE", key, {"uploadId": upload})
                aborted.append(name)
        return aborted

    def _listed(self, prefix: str) -> list[tuple[str, str]] | None:
        """Return the keys and ids of all uploads; None where they are not listed."""
        found: list[tuple[str, str]] = []
        query = {"uploads": "", "prefix": prefix}
        while True:
            page = self._send("GET", "", query)
            if page is None:
                return None
            root = ElementTree.fromstring(page)
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            for one in root.iter(f"{space}Upload"):
                found.append(
                    (one.findtext(f"{space}Key", ""), one.findtext(f"{space}UploadId", ""))
                )
            if root.findtext(f"{space}IsTruncated", "false") != "true":
                return found
            query["key-marker"] = root.findtext(f"{space}NextKeyMarker", "")
            query["upload-id-marker"] = root.findtext(f"{space}NextUploadIdMarker", "")

    def _send(self, method: str, key: str, query: dict[str, str]) -> bytes | None:
        """Return the answer, None where the request is refused or unknown there."""
        path = urlsplit(self._base).path + (f"/{quote(key, safe=_SAFE + '/')}" if key else "")
        arguments = urlencode(sorted(query.items()), quote_via=quote, safe=_SAFE)
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(self._base))
        request = urllib.request.Request(f"{origin}{path}?{arguments}", method=method)
        for name, value in self._signature(method, path, arguments).items():
            request.add_header(name, value)
        try:
            with self._opener().open(request, timeout=_TIMEOUT_SECONDS) as answer:
                data: bytes = answer.read(_MOST_BYTES)
                return data
        except urllib.error.HTTPError as error:
            with error:
                if error.code >= 500 and error.code != 501:
                    raise Transient(f"it answered HTTP {error.code}") from None
            return None
        except OSError as error:
            raise Transient(f"the connection broke ({type(error).__name__})") from None

    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context()
        if "root_certificate" in self._client:
            context.load_verify_locations(cadata=_text(self._client["root_certificate"]))
        if _is_true(self._client.get("allow_invalid_certificates")):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if "proxy_url" in self._client:
            proxy = str(self._client["proxy_url"])
            handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
        return urllib.request.build_opener(*handlers)

    def _signature(self, method: str, path: str, arguments: str) -> dict[str, str]:
        """Return the headers of version 4 of Amazon's signatures."""
        if self._keys is None:
            return {}
        now = datetime.fromtimestamp(SystemClock().wall(), UTC)
        moment, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        headers = {
            "host": urlsplit(self._base).netloc,
            "x-amz-content-sha256": _NOTHING,
            "x-amz-date": moment,
        }
        if self._keys.token:
            headers["x-amz-security-token"] = self._keys.token
        signed = ";".join(headers)
        canonical = "\n".join(
            [method, path or "/", arguments]
            + [f"{name}:{value}" for name, value in headers.items()]
            + ["", signed, _NOTHING]
        )
        scope = f"{day}/{self._region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self._keys.secret}".encode()
        for part in (day, self._region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        proof = hmac.digest(key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._keys.identity}/{scope}, "
            f"SignedHeaders={signed}, Signature={proof}"
        )
        return headers


def _keys(
    plain: Mapping[str, Any], provider: Callable[[], Mapping[str, Any]] | None
) -> SigningKeys | None:
    if provider is not None:
        given = provider()
        return SigningKeys(given["access_key_id"], given["secret_access_key"], given.get("token"))
    if "access_key_id" in plain and "secret_access_key" in plain:
        token = plain.get("session_token") or plain.get("token")
        return SigningKeys(str(plain["access_key_id"]), str(plain["secret_access_key"]), token)
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        identity, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        return SigningKeys(identity, secret, os.environ.get("AWS_SESSION_TOKEN"))
    if importlib.util.find_spec("boto3") is None:
        return None
    found = require("boto3", extra="restore").Session().get_credentials()
    return None if found is None else SigningKeys(found.access_key, found.secret_key, found.token)


def _is_true(value: object) -> bool:
    return str(value).lower() in ("true", "1")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
