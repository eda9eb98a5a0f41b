"""The server of the local page: on the loopback address only, for this page only."""

import hashlib
import json
import re
import shlex
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Collection
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from towtank.hardware_profiles.load import list_machines
from towtank.pages.html import html_of, page_file
from towtank.pages.local.answers import prediction_answer, settings_text
from towtank.pages.local.capacity import request_of
from towtank.pages.local.guard import Guard, Refusal
from towtank.pages.local.searches import Searches
from towtank.pages.local.wish import COUNTS, TEXTS, USUAL_STACK, Wish, WrongForm, predicted, task_of, wish_of
from towtank.pages.records import Page, Section
from towtank.pages.step_report import page_of, step_report
from towtank.simulator.models.load import list_models
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import list_stacks

ADDRESS = "127.0.0.1"
_SCRIPTS: dict[str, Callable[[], str]] = {
    "plotly.js": get_plotlyjs,
    "local.js": lambda: page_file("local/local.js"),
}
"""All files that the page loads; no path of a request ever becomes a path of a file."""


def application(port: int, folder: Path, searches: Searches) -> ASGIApp:
    """The local page at a port; forms may name files inside of `folder` only."""
    pages = _Pages(folder, searches)
    routes = [
        Route("/", pages.form),
        Route("/scripts/{name}", pages.script),
        Route("/report", pages.report),
        Route("/api/predict", pages.predict, methods=["POST"]),
        Route("/api/tune", pages.tune, methods=["POST"]),
        Route("/api/capacity", pages.capacity, methods=["POST"]),
        Route("/capacity/{name}", pages.capacity_report),
        Route("/api/tune/{name}", pages.progress, methods=["GET"]),
        Route("/api/tune/{name}", pages.stop, methods=["DELETE"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _http_error, WrongForm: _wrong_form, Exception: _our_fault}
    inner = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(inner, hosts_of(port), _refused)


def hosts_of(port: int) -> Collection[str]:
    """What the header Host may say; browsers leave the usual port out."""
    names = [ADDRESS, "localhost"]
    return [*(f"{name}:{port}" for name in names), *(names if port == 80 else ())]


def listen(port: int) -> socket.socket:
    """A socket on the loopback address; port 0: any that is free.

    Raises:
        OSError: the port is taken, or not ours to take.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ADDRESS, port))
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def serve(sock: socket.socket, folder: Path) -> None:
    """Serve until interrupted; then end every search."""
    import uvicorn

    searches = Searches()
    app = application(sock.getsockname()[1], folder, searches)
    # an address longer than the guard bears must reach it, so that it can say so
    config = uvicorn.Config(
        app, log_level="warning", http="h11", ws="none", lifespan="off", h11_max_incomplete_event_size=1 << 18,
        server_header=False, proxy_headers=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[sock])
    finally:
        searches.close()


class _Pages:
    """The handlers. Predictions and reports go one at a time: each takes a core."""

    def __init__(self, folder: Path, searches: Searches) -> None:
        self._folder, self._searches, self._one = folder, searches, threading.Lock()

    async def form(self, request: Request) -> Response:
        return _html(form_page())

    async def script(self, request: Request) -> Response:
        make = _SCRIPTS.get(request.path_params["name"])
        if make is None:
            raise HTTPException(404)
        return Response(make(), media_type="text/javascript", headers={"cache-control": "max-age=600"})

    async def predict(self, request: Request) -> Response:
        wish = wish_of(await _fields(request))
        return JSONResponse(await run_in_threadpool(self._predict, wish))

    def _predict(self, wish: Wish) -> dict[str, Any]:
        with self._one:
            return prediction_answer(wish, predicted(wish, self._folder))

    async def report(self, request: Request) -> Response:
        fields = request.query_params
        if twice := sorted({name for name, _ in fields.multi_items() if len(fields.getlist(name)) > 1}):
            raise WrongForm([f"{name} is given twice" for name in twice])
        return _html(await run_in_threadpool(self._report, wish_of(dict(fields))))

    def _report(self, wish: Wish) -> str:
        with self._one:
            prediction = predicted(wish, self._folder)
            page = page_of(step_report(prediction, commands_of(wish, prediction.plan)))
        return html_of(page, plotly="/scripts/plotly.js")

    async def tune(self, request: Request) -> Response:
        wish = wish_of(await _fields(request))
        await run_in_threadpool(task_of, wish, self._folder)  # what is wrong is told at once
        return await self._started(wish, "tune")

    async def capacity(self, request: Request) -> Response:
        wish = wish_of(await _fields(request))
        await run_in_threadpool(request_of, wish, self._folder)
        return await self._started(wish, "capacity")

    async def _started(self, wish: Wish, kind: str) -> Response:
        name = await run_in_threadpool(self._searches.start, wish.fields(), self._folder, kind)
        if name is None:
            return JSONResponse({"faults": ["two searches are under way; wait for one, or stop it"]}, 429)
        report = {"report": f"/capacity/{name}"} if kind == "capacity" else {}
        return JSONResponse({"search": name, **report}, 202)

    async def capacity_report(self, request: Request) -> Response:
        page = self._searches.page(request.path_params["name"])
        if page is None:
            raise HTTPException(404)
        return _html(page)

    async def progress(self, request: Request) -> Response:
        state = self._searches.state(request.path_params["name"])
        if state is None:
            raise HTTPException(404)
        return JSONResponse(state)

    async def stop(self, request: Request) -> Response:
        if not self._searches.stop(request.path_params["name"]):
            raise HTTPException(404)
        return JSONResponse({})


async def _fields(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise WrongForm(["the form is not JSON"]) from error


def commands_of(wish: Wish, plan: Plan) -> list[str]:
    """Lines that predict the same in a terminal; `plan` has the fields beside its own that the form had."""
    names = [("--model", wish.model), ("--machine", wish.machine), ("--stack", wish.stack)]
    settings = settings_text(plan) or f"tensor_x={plan.tensor_x}"
    options = " ".join(f"{name} {shlex.quote(text)}" for name, text in [*names, ("--set", settings)])
    return [f"towtank predict {options}"]


def form_page() -> str:
    """The page with the form; its script is a file of its own."""

    def options(names: Collection[str], chosen: str = "") -> str:
        return "".join(
            f'<option value="{escape(name)}"{" selected" if name == chosen else ""}>{escape(name)}</option>'
            for name in names
        )  # fmt: skip

    return Template(page_file("local/local.html")).substitute(
        style=page_file("page.css"),
        models=options(list_models()),
        machines=options(list_machines()),
        stacks=options(list_stacks(), USUAL_STACK),
        most_plan=TEXTS["plan"],
        most_text=TEXTS["model"],
        most_short=TEXTS["tokens"],
        most_count=COUNTS["devices"],
    )


def _html(text: str, status: int = 200) -> HTMLResponse:
    """A page that may run the scripts of this server and those that stand in it, and reach nothing else."""
    inline = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
    scripts = " ".join(["'self'", *(f"'sha256-{each}'" for each in hashes)])
    policy = (  # plotly writes styles into the page
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, status, {"content-security-policy": policy})


def _failure(path: str, status: int, faults: Collection[str]) -> Response:
    if path.startswith("/api/"):
        return JSONResponse({"faults": list(faults)}, status)
    page = Page(
        "This cannot be shown", f"towtank, status {status}", [Section("What is wrong", items=list(faults))]
    )
    return _html(html_of(page), status)


def _refused(scope: Scope, refusal: Refusal) -> ASGIApp:
    return _failure(scope["path"], refusal.status, [refusal.text])


async def _http_error(request: Request, error: HTTPException) -> Response:
    texts = {404: "there is nothing at this address", 405: "this address takes no such request"}
    return _failure(request.url.path, error.status_code, [texts.get(error.status_code, error.detail)])


async def _wrong_form(request: Request, error: WrongForm) -> Response:
    return _failure(request.url.path, 400, error.faults)


async def _our_fault(request: Request, error: Exception) -> Response:
    text = "this is a fault of towtank, not of your input; its lines are in the terminal, please report them"
    return _failure(request.url.path, 500, [text])
