"""An object store through obstore: S3, GCS, Azure and compatible services.

obstore signs requests, splits uploads and speaks HTTP; `provider_errors` explains its errors. Each
request is sent once; `retry` repeats it, in the same way for every store. No signal reaches obstore
while it waits, and nothing ends its wait. So the main thread, which may be interrupted, and our
background threads wait for another thread that sends the request for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from memories.backends.bucket.multipart_cleanup import MultipartUploads
from memories.backends.bucket.objectstore import (
    Absent,
    BeforeSend,
    Buffer,
    Conflict,
    ObjectStore,
    Stat,
)
from memories.backends.bucket.options import S3_SCHEMES, client_options, split_options
from memories.backends.bucket.provider_errors import ProviderErrors, is_panic
from memories.backends.bucket.restore_request import request_restore
from memories.backends.bucket.url import BucketUrl
from memories.errors import ClosedError, InvalidOptionError
from memories.foundation.optional_imports import require
from memories.foundation.periodic import BackgroundThread
from memories.foundation.worker_pool import Task, Worker, WorkerPool, is_abandoned

T = TypeVar("T")

_SINGLE_BYTES = 32 * 1024 * 1024  # Up to here one request, which needs one piece of memory.
_PART_BYTES = 16 * 1024 * 1024
_PARTS_AT_ONCE = 8
_SENDERS = 16  # Of the main thread and ours in the background each has a request under way.
_PROBE = "lock/probe"
_CLOSED = "the archive is closed: open it again"


class CloudStore(ObjectStore):
    """Objects under `url` and a fixed prefix below it."""

    def __init__(
        self, url: BucketUrl, fixed_prefix: str, storage_options: Mapping[str, Any]
    ) -> None:
        obstore = require("obstore", extra="glacier")
        require("obstore.store", extra="glacier")
        if url.private:
            raise InvalidOptionError(
                "glacier_url holds credentials or a query: give them by storage_options instead"
            )
        scheme = {"gcs": "gs"}.get(url.scheme, url.scheme)
        self.url = str(url)
        config, client, provider = split_options(scheme, storage_options)
        self._errors = ProviderErrors(self.url, [*config.values(), *client.values()])
        self._obstore = obstore
        self._options = dict(storage_options)
        self._fixed_prefix = fixed_prefix
        self._location = url
        self._uploads = MultipartUploads(url, config, client, provider)
        self._senders = WorkerPool(_SENDERS, "glacier-requests", remote=True)
        self._under_way: set[Task[Any]] = set()
        self._left: dict[str, Task[Any]] = {}  # Writes by name that their callers have given up.
        path = url.path.rstrip("/").replace("#", "%23")  # obstore takes it for a fragment.
        target = f"{scheme}://{url.host}{path}/{fixed_prefix}"
        extra = {"credential_provider": provider} if provider else {}
        self._client: Any = self._errors.open_client(
            lambda: obstore.store.from_url(
                target,
                config=config or None,
                client_options=client_options(client),
                retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=0)},
                **extra,
            )
        )

    def put(self, name: str, buffers: Sequence[Buffer], sending: BeforeSend | None = None) -> None:
        """Put: by one request, or by a multipart upload that is aborted if it fails."""
        views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        if sum(map(len, views)) <= _SINGLE_BYTES:
            data = views[0] if len(views) == 1 else b"".join(views)
            if sending is not None:
                sending(len(data))
            self._write(name, lambda: self._client.put(name, data, use_multipart=False))
        else:
            self._write(
                name,
                lambda: self._client.put(
                    name,
                    _pieces(views, sending),
                    chunk_size=_PART_BYTES,
                    max_concurrency=_PARTS_AT_ONCE,
                ),
            )

    def put_if(self, name: str, data: bytes, tag: str | None) -> str:
        """Put with If-None-Match or If-Match."""
        mode: Any = "create" if tag is None else {"e_tag": tag}
        result = self._call(
            lambda: self._client.put(name, data, mode=mode, use_multipart=False), conditional=True
        )
        return str(result["e_tag"])

    def honours_conditions(self) -> bool:
        """Write a small object twice as if it were absent: the second time must be refused."""
        for _ in range(2):
            try:
                self.put_if(_PROBE, b"1", None)
            except Conflict:
                return True
        return False

    def forget_probe(self) -> None:
        """Delete what `honours_conditions` has written."""
        self.delete(_PROBE)

    def get(self, name: str) -> tuple[bytes, str]:
        """Get whole."""
        result = self._call(lambda: self._client.get(name))
        return self._call(lambda: bytes(result.bytes())), str(result.meta["e_tag"])

    def get_range(self, name: str, offset: int, length: int) -> Buffer:
        """Get a range; an offset beyond the end gives nothing."""
        try:
            data = self._call(lambda: self._client.get_range(name, start=offset, length=length))
        except self._errors.BeyondEnd:
            return b""
        return memoryview(data)

    def delete(self, name: str) -> None:
        """Delete."""
        try:
            self._write(name, lambda: self._client.delete(name))
        except Absent:
            return

    def list(self, prefix: str) -> Iterator[Stat]:
        """List, a thousand names per request."""
        pages = iter(self._call(lambda: self._client.list(prefix, chunk_size=1000)))
        while True:
            page = self._call(lambda: next(pages, None))
            if page is None:
                return
            for meta in page:
                yield Stat(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def abandoned_uploads(self, names: Collection[str] | None) -> Sequence[str] | None:
        """Abort them on S3. Azure forgets them itself within a week."""
        if self._location.scheme in S3_SCHEMES:
            return self._uploads.abort(f"{self._fixed_prefix}/", names)
        return None if self._location.scheme in ("gs", "gcs") else []

    def restore(self, name: str, days: int) -> None:
        """Ask S3, through boto3."""
        request_restore(self._location, self._fixed_prefix, self._options, name, days)

    def close(self) -> None:
        """Drop the client, which closes its idle connections.

        A thread that waits for an answer fails at once, unless it belongs to a pool.
        """
        self._client = _Closed()
        for task in list(self._under_way):
            task.fail(ClosedError(_CLOSED))
        self._senders.close()

    def _write(self, name: str, request: Callable[[], object]) -> None:
        """Change an object, after the end of a change of it that an interrupt has cut short.

        That one may still arrive: what is begun later must not be overtaken by it.
        """
        before = self._left.get(name)
        if before is not None:
            before.wait()
            self._left.pop(name, None)
        self._call(request, name=name)

    def _call(
        self, request: Callable[[], T], *, conditional: bool = False, name: str | None = None
    ) -> T:
        try:
            result = self._send(request, name)
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
            failure = self._errors.translate(error, conditional=conditional)
        except BaseException as error:
            # A panic of the library is not an Exception, and would end the thread it runs in.
            if not is_panic(error):
                raise
            failure = self._errors.translate(error)
        else:
            self._errors.reached = True
            return result
        # Outside of the handler, so that the foreign error is not kept as the context: it may hold
        # a signed URL or a header.
        raise failure

    def _send(self, request: Callable[[], T], name: str | None) -> T:
        """Send a request so that Ctrl-C and `close` end the wait for it; it may write `name`."""
        me = threading.current_thread()
        if isinstance(me, Worker) or not (
            me is threading.main_thread() or isinstance(me, BackgroundThread)
        ):
            return request()
        task = self._senders.submit(request)
        try:
            self._under_way.add(task)
            if self._senders.has_threads:
                task.wait()
        except BaseException:
            if name is not None:
                self._left[name] = task
            task.abandon()
            raise
        finally:
            self._under_way.discard(task)
        try:
            return task.result()
        finally:
            del task  # Which refers to the error that refers to this frame.


class _Closed:
    """Takes the place of a client that was dropped."""

    def __getattr__(self, name: str) -> Any:
        raise ClosedError(_CLOSED)


def _pieces(views: Sequence[memoryview], sending: BeforeSend | None) -> Iterator[memoryview]:
    for view in views:
        for start in range(0, len(view), _PART_BYTES):
            piece = view[start : start + _PART_BYTES]
            if is_abandoned():
                raise InterruptedError("the caller was interrupted")
            if sending is not None:
                sending(len(piece))
            yield piece
