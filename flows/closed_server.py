"""Prefect's server behind a password, for this machine's own pages only: `python -m flows.closed_server PORT`.

Anyone who can create a deployment can run commands as the server's owner, so the API requires the secret in
`.prefect/auth` (mode 0600) from every caller. Other sites open in the owner's browser get nothing: requests with a
foreign origin, or for a host name that is not this machine's (DNS rebinding), are rejected. `/enter#SECRET` is the page
behind the printed link; it passes the secret to Prefect's pages, and the part after `#` never leaves the browser.
"""

import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io.private import private_folder

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
ENTER = "/enter"
PAGE = b"""<!doctype html><title>Pose-RFT</title><script>
localStorage.setItem("prefect-password", btoa(decodeURIComponent(location.hash.slice(1))));
location.replace("/");
</script>"""

Message = dict[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def secret(home: Path) -> str:
    """Returns Prefect's auth string, created once per folder; makes the folder private.

    Raises:
        PoseRftError: the folder or the file belongs to another account or is accessible to others.
    """
    file = private_folder(home) / "auth"
    try:
        created = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(created, "w") as made:
            made.write(f"pose-rft:{secrets.token_urlsafe(32)}\n")
    opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(opened) as stream:
        facts = os.fstat(opened)
        if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise PoseRftError(f"{file} is not this account's alone; remove it, and `pose-rft up` makes another.")
        text = stream.read().strip()
    if not text.startswith("pose-rft:") or len(text) < 40:
        raise PoseRftError(f"{file} holds no secret of `pose-rft up`; remove it, and `pose-rft up` makes another.")
    return text


def environment(port: int, auth: str) -> dict[str, str]:
    """Returns the environment variables of the server and its clients."""
    return {
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def closed(app: App, port: int) -> App:
    """Wraps `app` to answer only this machine's own host names and origins, and to serve the page `ENTER`."""
    hosts = {f"{name}:{port}".encode() for name in NAMES}
    origins = {b"http://" + host for host in hosts}

    async def answer(send: Callable[[Message], Awaitable[None]], status: int, kind: bytes, body: bytes) -> None:
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def checked(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await app(scope, receive, send)
        headers = dict(scope["headers"])
        if headers.get(b"host") not in hosts or headers.get(b"origin", b"") not in origins | {b""}:
            if scope["type"] == "websocket":
                await receive()
                return await send({"type": "websocket.close", "code": 1008})
            return await answer(send, 403, b"text/plain", b"This server answers its own machine's pages only.")
        if scope["type"] == "http" and scope["path"] == ENTER:
            return await answer(send, 200, b"text/html", PAGE)
        return await app(scope, receive, send)

    return checked


def main(port: int) -> None:
    """Serves until terminated; expects the variables of `environment` to be set."""
    os.umask(0o077)  # the database holds the logs and parameters of flows
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(closed(create_app(final=True), port), host=HOST, port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]))
