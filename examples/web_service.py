"""A web service with FastAPI: an event loop that never waits for a disk.

Hits in RAM are answered in the loop, in microseconds; values on the disk are read by a thread.
`uvicorn examples.web_service:app` serves it; run as a script it serves itself and asks.
"""

import importlib.util
import json
import sys
import tempfile
import threading
import time
from contextlib import asynccontextmanager
from urllib.request import Request, urlopen

import numpy as np

NEEDED = ("fastapi", "uvicorn", "anyio")
if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    print(f"this example needs {', '.join(missing)}")
    sys.exit()

import uvicorn  # noqa: E402
from anyio import to_thread  # noqa: E402
from fastapi import FastAPI, HTTPException  # noqa: E402

from memories import aio  # noqa: E402

manager = aio.MemoryManager("64 MB", "256 MB", 1, storage_path=tempfile.mkdtemp())


@asynccontextmanager
async def lifespan(app):
    """Open the store when the service starts, and write what is only in RAM when it ends."""
    async with manager:
        yield


app = FastAPI(lifespan=lifespan)


@app.put("/series/{name}")
async def put(name: str, values: list[float]):
    """Keep a series of numbers."""
    await manager.store(name, np.array(values), metadata={"count": len(values)})
    return {"stored": len(values)}


@app.get("/series/{name}/mean")
async def mean(name: str):
    """Return the mean of a series."""
    series = await manager.retrieve(name, None)
    if series is None:
        raise HTTPException(404, f"there is no series {name!r}")
    return {"mean": float(series.mean()), "tier": await manager.get_tier(name)}


@app.get("/series/{name}/smooth")
@aio.cached(manager, ttl=60, version=1)  # Below the route. Requests at the same time share it.
async def smooth(name: str, width: int = 3):
    """Return a moving mean, computed once a minute for each name and width."""
    series = await manager.retrieve(name)
    return await to_thread.run_sync(lambda: np.convolve(series, np.ones(width) / width).tolist())


@app.get("/series")
async def names(prefix: str = ""):
    """List the series."""
    return [name async for name in manager.scan(prefix)]


def main():
    """Serve on a free port, and ask as a client would."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"http://127.0.0.1:{port}{path}", data, headers)
        request.method = "GET" if body is None else "PUT"
        with urlopen(request) as answer:
            return json.load(answer)

    for month in range(1, 4):
        print(ask(f"/series/2026-{month:02}", [month * day / 10 for day in range(30)]))
    print(ask("/series?prefix=2026"))
    print(ask("/series/2026-03/mean"))
    print(len(ask("/series/2026-03/smooth?width=5")), len(ask("/series/2026-03/smooth?width=5")))
    print(smooth.cache_info())
    server.should_exit = True
    thread.join()
    print("closed:", manager.closed)


if __name__ == "__main__":
    main()
