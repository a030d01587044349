# SPDX-License-Identifier: Apache-2.0
"""What is served by address: the page, its files, the session's files, and the headers of every answer."""

import asyncio
import threading

import aiohttp
import pytest

from usreg.errors import FileFormatError

# --- files and headers ---


def test_headers_of_every_answer(serve, talk):
    _, url = serve()
    for path in ("/", "/none", "/ws", "/../../secret"):
        _, headers, _ = talk.get(url, path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'; script-src 'self'; worker-src 'self';" in policy and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] in ("no-store", "no-cache") and headers["Server"] == "usreg"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/none.js", "/%2e%2e/server.py", "/..%2fserver.py", "/js/..%2f..%2fserver.py", "/js",
                                  "/server.py", "//etc/passwd", "/js%00/app.js", "/.git"])  # fmt: skip
def test_other_files_are_not_served(serve, talk, path):
    server, _ = serve()

    async def main():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.split()[1] in (b"404", b"400"), answer[:200]

    talk.run(main())


def test_types_of_the_page(serve, talk):
    _, url = serve()
    for path, kind in (
        ("/", "text/html"),
        ("/js/wire.js", "text/javascript"),
        ("/vendor/uplot/uPlot.min.css", "text/css"),
    ):
        status, headers, body = talk.get(url, path)
        assert status == 200 and headers["Content-Type"] == f"{kind}; charset=utf-8" and body
        etag = {"If-None-Match": headers["ETag"]}
        assert talk.get(url, path, headers=etag)[0] == 304


def test_other_methods_are_refused(serve, talk):
    _, url = serve()

    async def main():
        async with aiohttp.ClientSession() as session:
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                async with session.request(method, url, data=b"x" * 100_000) as answer:
                    assert answer.status == 405

    talk.run(main())


def test_files_of_the_session(serve, talk, tmp_path):
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(b"labels")
    made = []

    def volume():
        made.append(threading.current_thread().name)
        return "application/gzip", b"volume"

    def missing():
        raise FileFormatError("this session has no labels")

    def broken():
        raise ZeroDivisionError("a secret path")

    files = {
        "/volume.nii.gz": volume,
        "/labels.nii.gz": lambda: ("application/gzip", path),
        "/gone": lambda: ("application/gzip", tmp_path / "gone"),
        "/missing": missing,
        "/broken": broken,
    }
    _, url = serve(files=files)
    assert made == []  # when asked for
    status, headers, body = talk.get(url, "/volume.nii.gz")
    assert (status, body, headers["Content-Type"], headers["Cache-Control"]) == (
        200,
        b"volume",
        "application/gzip",
        "no-store",
    )
    assert made and made[0] != "view"
    status, headers, body = talk.get(url, "/labels.nii.gz")
    assert (status, body, headers["Content-Type"]) == (200, b"labels", "application/gzip")
    assert headers["Cache-Control"] == "no-store"
    assert talk.get(url, "/gone")[0] == 404
    status, _, body = talk.get(url, "/missing")
    assert status == 404 and body == b"this session has no labels"
    status, _, body = talk.get(url, "/broken")
    assert status == 500 and b"secret" not in body
