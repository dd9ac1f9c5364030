"""What a page in a real browser did that it must not do."""

from __future__ import annotations

from typing import Any


class Seen:
    """What a page did that it must not do."""

    def __init__(self, page: Any, origin: str) -> None:
        self.wrong: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self._request(request.url, origin))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def _request(self, url: str, origin: str) -> None:
        if not url.startswith((origin, "data:")):
            self.wrong.append(f"request: {url}")
