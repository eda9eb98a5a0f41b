"""The local page, served as `towtank ui` does, and a client that says exactly what a test wants."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from towtank.pages.local.searches import Searches
from towtank.pages.local.server import application, listen


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


Ask = Callable[..., Answer]


@pytest.fixture(scope="session")
def port(folder: Path) -> Iterator[int]:
    sock, searches = listen(0), Searches()
    found = sock.getsockname()[1]
    app = application(found, folder, searches)
    config = uvicorn.Config(
        app,
        log_level="critical",
        http="h11",
        ws="none",
        lifespan="off",
        h11_max_incomplete_event_size=1 << 18,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield found
    server.should_exit = True
    thread.join()
    searches.close()


@pytest.fixture(scope="session")
def ask(port: int) -> Ask:
    def request(
        method: str, path: str, body: Any = None, *, host: str | None = None, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            given = {"Content-Type": "application/json", **given}
        connection.request(method, path, data, {"Host": host or f"127.0.0.1:{port}", **given})
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read().decode())
        connection.close()
        return answer

    return request
