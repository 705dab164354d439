"""Access control: admits callers that use this machine's own names and know the token of this start.

Pages of other sites in the same browser get nothing: requests from another origin are refused, and so are requests
under a host name that is not this machine's (DNS rebinding). The printed link carries the token after `#`, which never
leaves the browser; the page sends it as a header, so there is no cookie that another page could use. Pages and scripts
hold no user data and need no token. The content security policy lets the page load from this server only.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from pose_rft.errors import PoseRftError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
API = "/api/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ADDED = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]


def closed(app: App, port: int, token: str) -> App:
    """Wraps `app` so that it answers only this machine's own pages, and its API only with the token."""
    hosts = {f"{name}:{port}".encode() for name in NAMES}
    origins = {b""} | {b"http://" + host for host in hosts}
    expected = f"Bearer {token}".encode()

    async def checked(scope: Message, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await app(scope, receive, send)
        if scope["type"] != "http":
            raise PoseRftError(f"A connection of the kind {scope['type']} is not answered.")
        headers = dict(scope["headers"])
        if headers.get(b"host") not in hosts or headers.get(b"origin", b"") not in origins:
            return await _refuse(send, 403, "This server answers its own machine's pages only.")
        if scope["path"].startswith(API) and not secrets.compare_digest(headers.get(b"authorization", b""), expected):
            return await _refuse(send, 401, "The token is missing or of another start; open the link that was printed.")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *ADDED]}
            await send(message)

        await app(scope, receive, with_headers)

    return checked


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = f'{{"error": "{sentence}"}}'.encode()
    kinds = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*kinds, *ADDED]})
    await send({"type": "http.response.body", "body": body})
