"""What the local page refuses before it reads a request: other sites, other hosts, too much text."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_PATH_BYTES = 8192
"""Of a path with its query."""
MOST_HEADER_BYTES = 65536
"""Of all headers together."""
MOST_BODY_BYTES = 65536
_HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no answer."""

    status: int
    """Of HTTP."""
    text: str


def refusal(scope: Scope, hosts: Collection[str]) -> Refusal | None:
    """Why this request is refused; None where it is not. `hosts` are the names with port that are ours."""
    headers = Headers(scope=scope)
    size = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    if headers.getlist("host") not in [[host] for host in hosts]:
        # a foreign name that leads here is how a web site reaches a server on this computer
        return Refusal(421, f"the Host must be {' or '.join(sorted(hosts))}; open the page by that name")
    if size > MOST_PATH_BYTES:
        return Refusal(414, f"the address has {size:,} bytes; {MOST_PATH_BYTES:,} is the most")
    if (size := sum(len(name) + len(value) for name, value in scope["headers"])) > MOST_HEADER_BYTES:
        return Refusal(431, f"the headers have {size:,} bytes; {MOST_HEADER_BYTES:,} is the most")
    if _is_foreign(scope, headers, hosts):
        return Refusal(403, "another site asks for this; open the page itself")
    if scope["method"] == "POST" and headers.get("content-type", "").split(";")[0] != "application/json":
        return Refusal(415, "a form is posted as application/json")
    return None


def _is_foreign(scope: Scope, headers: Headers, hosts: Collection[str]) -> bool:
    """Whether a page that is not ours asks. Only the empty form may be opened from another site, by a link."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if origin is not None and origin not in {f"http://{host}" for host in hosts}:
        return True
    return site not in ("none", "same-origin") and (scope["method"], scope["path"]) != ("GET", "/")


class Guard:
    """Asks `refusal` first, bounds the body, and adds the headers of safety to every answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], refuse: Callable[[Scope, Refusal], ASGIApp]):
        self._app, self._hosts, self._refuse = app, hosts, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        found = refusal(scope, self._hosts)
        body = b"" if found else await _body(scope, receive)
        if body is None:
            found = Refusal(413, f"the form has more than {MOST_BODY_BYTES:,} bytes")
        app = self._app if found is None else self._refuse(scope, found)
        await app(scope, _replay(body or b"", receive), _with_headers(send))


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None where it is too long, whatever its length was said to be."""
    if Headers(scope=scope).get("content-length", "0").rjust(20, "0") > str(MOST_BODY_BYTES).rjust(20, "0"):
        return None
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > MOST_BODY_BYTES:
            return None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


def _with_headers(send: Send) -> Send:
    async def give(message: Message) -> None:
        if message["type"] == "http.response.start":
            own: dict[str, Any] = {name.decode(): value for name, value in message["headers"]}
            own = {name: value.encode() for name, value in _HEADERS.items()} | own
            message = {**message, "headers": [(name.encode(), value) for name, value in own.items()]}
        await send(message)

    return give
