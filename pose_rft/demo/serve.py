"""Starts the page: binds the port, loads the model and prints the link that opens the page."""

import secrets
import socket
from pathlib import Path

from pose_rft.demo.gate import HOST, closed
from pose_rft.errors import PoseRftError


def serve(model: Path, body: Path, port: int) -> None:
    """Serves the page until interrupted.

    Raises:
        PoseRftError: the extra `demo` is not installed, the port is taken, or the model cannot be loaded.
    """
    try:
        import uvicorn

        from pose_rft.demo.api import build
    except ImportError as error:
        raise PoseRftError(
            f"The page needs the package {error.name}, which is not installed: pip install 'pose-rft[demo]'."
        ) from None
    from pose_rft.demo.desk import Desk
    from pose_rft.demo.results import Studio

    with listening(port) as taken:
        port = taken.getsockname()[1]
        token = secrets.token_urlsafe(24)
        app = closed(build(Studio(model, body), Desk()), port, token)  # type: ignore[arg-type]
        print(f"Open http://{HOST}:{port}/#{token}\n(Ctrl-C ends it; the link is for you alone.)", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            ws="none",
            server_header=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[taken])


def listening(port: int) -> socket.socket:
    """Returns a socket bound to a local port; 0 means any free port.

    Raises:
        PoseRftError: the port cannot be used.
    """
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
    except OSError as error:
        taken.close()
        raise PoseRftError(f"Port {port} cannot be used ({error.strerror}); choose another with --port.") from None
    return taken
