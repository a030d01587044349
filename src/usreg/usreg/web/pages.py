# SPDX-License-Identifier: Apache-2.0
"""What is asked for by address: the page's files, the session's files; who may, and the headers of every answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from ..errors import UsregError
from .access import Access

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".wasm": "application/wasm",
}
# nothing inline, nothing evaluated, nothing from elsewhere; niivue's font is a data URL, snapshots are blobs; Safari
# does not take 'self' for the socket
POLICY = (
    "default-src 'self'; script-src 'self'; worker-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' ws://{host} wss://{host}; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Server": "usreg",
}
Made = Callable[[], tuple[str, bytes | Path]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Signal before any answer. Session files are never stored; files of the page are asked for again each time."""
    response.headers.update(HEADERS)
    response.headers["Content-Security-Policy"] = POLICY.format(host=_place(request))
    response.headers.setdefault("Cache-Control", "no-store")


def _place(request: web.BaseRequest) -> str:
    """Host and port as the browser knows them; they were checked, but a refusal has this header too."""
    host = request.headers.get("Host", "")
    return host if all(c.isalnum() or c in ".-:[]_" for c in host) and host.isascii() else "localhost"


def static_file(name: str, root: Path = STATIC) -> Path | None:
    """The file of the page with a relative name; None for anything else (other folders, hidden or unknown kinds)."""
    parts = name.split("/")
    if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        return None
    path = root.joinpath(*parts)
    return path if path.suffix in TYPES and path.is_file() else None


async def serve_static(request: web.Request) -> web.StreamResponse:
    """A file of the page, with its type; 304 where the browser has it already."""
    path = static_file(request.match_info.get("name") or "index.html")
    if path is None:
        raise web.HTTPNotFound(text="no such file")
    headers = {"Content-Type": TYPES[path.suffix], "Cache-Control": "no-cache"}
    return web.FileResponse(path, headers=headers)


def session_file(make: Made) -> Handler:
    """A handler that has the file made in a worker thread, one at a time."""
    one = asyncio.Lock()

    async def serve(request: web.Request) -> web.StreamResponse:
        try:
            async with one:
                kind, content = await asyncio.to_thread(make)
        except UsregError as error:
            raise web.HTTPNotFound(text=str(error)) from error
        except Exception as error:
            log.exception("making %s failed", request.path)
            raise web.HTTPInternalServerError(text="this file could not be made; the log says why") from error
        if isinstance(content, Path):
            if not content.is_file():
                raise web.HTTPNotFound(text="this file is not there any more")
            return web.FileResponse(content, headers={"Content-Type": kind})
        return web.Response(body=content, content_type=kind)

    return serve


def make_app(access: Access, connect: Handler, files: Mapping[str, Made]) -> web.Application:
    """The page at /, its files, the session's files at their own paths, the socket at /ws; all behind `access`."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        reason = access.refusal(request.headers, request.query.get("token", ""))
        if reason:
            raise web.HTTPForbidden(text=reason)
        if access.token and request.path == "/" and "token" in request.query:
            return enter(request, access)
        return await handler(request)

    async def open_socket(request: web.Request) -> web.StreamResponse:
        reason = access.socket_refusal(request.headers)
        if reason:
            raise web.HTTPForbidden(text=reason)
        return await connect(request)

    app = web.Application(middlewares=[guard], client_max_size=4096)
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/ws", open_socket)
    for path, make in files.items():
        app.router.add_get(path, session_file(make))
    app.router.add_get("/", serve_static)
    app.router.add_get("/{name:.+}", serve_static)
    return app


def enter(request: web.Request, access: Access) -> web.StreamResponse:
    """The token becomes a cookie and leaves the address bar."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":  # a redirect would not carry a strict cookie
        response = web.Response(text="", content_type="text/html", headers={"Refresh": "0; url=/"})
    else:
        response = web.Response(status=303, headers={"Location": "/"})
    response.set_cookie(access.cookie, access.token, httponly=True, samesite="Strict", path="/")
    return response
