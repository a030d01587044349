# SPDX-License-Identifier: Apache-2.0
"""The server over real sockets: the page, the socket, clients that behave badly, and what others notice of them."""

import asyncio
import json
import socket
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

from usreg.errors import ConfigError, FileFormatError, PortInUseError, UsregError
from usreg.web.commands import COMMANDS
from usreg.web.hub import Hub, HubConfig
from usreg.web.server import Server, ViewConfig
from usreg.web.wire import pack, unpack

TOKEN = "0123456789abcdef"
IMAGE = np.zeros((564, 752), np.uint8)
WAIT_S = 20.0  # nothing here takes so long unless it is broken


class Controls:
    kind, names = "live", tuple(COMMANDS)

    def __init__(self):
        self.calls = []

    def call(self, command):
        self.calls.append(command)
        return {"n": len(self.calls)}


@pytest.fixture
def serve():
    """Makes servers, all of which are stopped."""
    servers = []

    def make(hub=None, files=None, controls=None, **settings):
        server = Server(hub or Hub(), controls or Controls(), ViewConfig(**{"port": 0, **settings}), files or {})
        servers.append(server)
        return server, server.start()

    yield make
    for server in servers:
        server.stop()


def run(work):
    return asyncio.run(asyncio.wait_for(work, WAIT_S))


async def get(url, path="/", **options):
    """(status, headers, body) of a request."""
    async with aiohttp.ClientSession() as session:
        async with session.get(url.rstrip("/") + path, allow_redirects=False, **options) as answer:
            return answer.status, answer.headers, await answer.read()


class Page:
    """What a page does at the socket."""

    def __init__(self, connection):
        self.socket = connection

    async def say(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def next(self, *kinds):
        """Header of the next message, of one of the kinds where given; others are passed over."""
        while True:
            message = await self.socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, f"closed: {message}"
            header, _ = unpack(message.data)
            if not kinds or header["type"] in kinds:
                return header

    async def end(self):
        """(code, reason) of the server's close."""
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra
            assert message.type is aiohttp.WSMsgType.BINARY, message

    async def ack(self, seq):
        await self.say(type="ack", seq=seq, drawn_server_s=None)


@asynccontextmanager
async def page(url, **options):
    parts = urlsplit(url)
    place = f"ws://{parts.netloc}/ws" + (f"?{parts.query}" if parts.query else "")
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(place, max_msg_size=1 << 26, **options) as connection:
            yield Page(connection)


def frame(seq: int) -> bytes:
    return pack({"type": "frame", "seq": seq}, {"image": IMAGE})


# --- frames and kept messages ---


def test_kept_messages_and_frames_arrive(serve):
    hub = Hub()
    hub.keep("hello", pack({"type": "hello"}))
    hub.keep("organ/1", pack({"type": "organ"}))
    hub.show(1, frame(1))
    _, url = serve(hub)

    async def main():
        async with page(url) as client:
            assert [(await client.next())["type"] for _ in range(3)] == ["hello", "frame", "organ"]
            hub.keep("status", pack({"type": "status"}))
            assert (await client.next())["type"] == "status"
            await client.ack(1)
            hub.show(2, frame(2))
            assert (await client.next())["seq"] == 2
        async with page(url) as client:  # the next one gets all of it again
            assert [(await client.next())["type"] for _ in range(3)] == ["hello", "status", "frame"]

    run(main())


def test_a_slow_client_gets_the_newest_and_a_quick_one_all(serve):
    hub = Hub()
    _, url = serve(hub)

    async def main():
        async with page(url) as slow, page(url) as quick:
            while len(hub.figures()["clients"]) < 2:
                await asyncio.sleep(0.01)
            for seq in range(1, 21):
                hub.show(seq, frame(seq))
                assert (await quick.next())["seq"] == seq
                await quick.ack(seq)
            assert (await slow.next())["seq"] == 1
            await slow.ack(1)
            assert (await slow.next())["seq"] == 20
            await slow.ack(20)
            while not all(c["acknowledged"] == c["sent"] for c in hub.figures()["clients"]):
                await asyncio.sleep(0.01)
            assert sorted(c["sent"] for c in hub.figures()["clients"]) == [2, 20]

    run(main())


def test_a_client_that_reads_nothing_costs_one_frame(serve):
    hub = Hub(HubConfig(stalled_s=0.05))
    _, url = serve(hub)
    big = pack({"type": "frame", "seq": 0}, {"image": np.zeros(8_000_000, np.uint8)})
    status = pack({"type": "status"}, {"image": IMAGE})

    async def main():
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1024)
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        async with page(url) as other:
            for seq in range(10):
                hub.show(seq, big)
                hub.keep("status", status)
                await other.next("frame")
                await other.ack(seq)
            await asyncio.sleep(0.1)
            stuck = hub.figures()["clients"][0]
            assert stuck["stalled"] and stuck["sent"] == 1 and stuck["bytes"] <= len(big) + 2 * len(status)
            await other.say(type="ping", client_ms=1)
            await other.next("pong")
        writer.transport.abort()

    run(main())


def test_watched_follows_the_connections(serve):
    hub, told = Hub(), []
    hub.on_watch(told.append)
    _, url = serve(hub)

    async def main():
        async with page(url):
            while not told:
                await asyncio.sleep(0.01)
        while len(told) < 2:
            await asyncio.sleep(0.01)

    run(main())
    assert told == [True, False] and not hub.watched


# --- what the page says ---


def test_pings_and_commands_are_answered(serve):
    controls = Controls()
    _, url = serve(controls=controls)

    async def main():
        async with page(url) as client:
            await client.say(type="ping", client_ms=12.5)
            pong = await client.next()
            assert pong["type"] == "pong" and pong["client_ms"] == 12.5 and pong["server_s"] > 0
            await client.say(type="command", id=7, name="seek", args={"index": 3})
            assert await client.next() == {"type": "reply", "id": 7, "ok": True, "message": "", "data": {"n": 1}}
            await client.say(type="command", id=8, name="seek", args={"index": "3"})
            answer = await client.next()
            assert answer["id"] == 8 and not answer["ok"] and "index" in answer["message"]

    run(main())
    assert len(controls.calls) == 1


MALFORMED = [
    "",
    "{",
    "null",
    "[1]",
    '"ack"',
    "{}",
    '{"type": "shout"}',
    '{"type": ["ack"]}',
    '{"type": "ack"}',
    '{"type": "ack", "seq": "1"}',
    '{"type": "ack", "seq": 1.5}',
    '{"type": "ack", "seq": true}',
    '{"type": "ack", "seq": 1, "drawn_server_s": NaN}',
    '{"type": "ack", "seq": 1, "drawn_server_s": "now"}',
    '{"type": "ping"}',
    '{"type": "ping", "client_ms": Infinity}',
    '{"type": "ping", "client_ms": ' + "9" * 400 + "}",
    '{"type": "ping", "client_ms": ' + "9" * 5000 + "}",
    '{"type": "command", "name": "reset"}',
    '{"type": "command", "id": "x", "name": "reset"}',
    '{"type": "command", "id": ' + "9" * 30 + ', "name": "reset"}',
    "[" * 50_000,
    '{"type":' * 8000,
    "\ud83d"[:0] + "\u0000",
]


def test_malformed_messages_are_answered_and_the_session_goes_on(serve):
    controls = Controls()
    _, url = serve(controls=controls)

    async def main():
        async with page(url) as client:
            for text in MALFORMED:
                await client.socket.send_str(text)
                answer = await client.next()
                assert answer["type"] == "reply" and answer["id"] is None and not answer["ok"], text[:60]
                assert 0 < len(answer["message"]) < 400
            await client.socket.send_bytes(b"USR1")
            assert not (await client.next())["ok"]
            await client.say(type="ping", client_ms=1)
            assert (await client.next())["type"] == "pong"

    run(main())
    assert controls.calls == []


@pytest.mark.parametrize("name, args", [("format", {}), (None, {}), ("reset", []), ("reset", {"a": 1}), (3, 4)])
def test_unknown_commands_are_answered(serve, name, args):
    _, url = serve()

    async def main():
        async with page(url) as client:
            await client.say(type="command", id=1, name=name, args=args)
            answer = await client.next()
            assert answer["id"] == 1 and not answer["ok"] and answer["message"]

    run(main())


def test_a_read_only_view_refuses_commands(serve):
    controls = Controls()
    _, url = serve(controls=controls, read_only=True)

    async def main():
        async with page(url) as client:
            await client.say(type="command", id=1, name="reset", args={})
            assert "read only" in (await client.next())["message"]

    run(main())
    assert controls.calls == []


@pytest.mark.parametrize("extra", [1, 5_000_000])
def test_a_message_that_is_too_large_ends_that_client_only(serve, extra):
    _, url = serve(max_message_bytes=1000)

    async def main():
        async with page(url) as other, page(url) as client:
            await client.socket.send_str("x" * 1000)  # as large as allowed
            assert not (await client.next())["ok"]
            await client.socket.send_str("x" * (1000 + extra))
            assert await client.end() == (1009, "a message may have 1000 bytes at most")
            await other.say(type="ping", client_ms=1)
            assert (await other.next())["type"] == "pong"

    run(main())


def test_a_client_that_floods_is_closed_others_go_on(serve):
    _, url = serve()

    async def main():
        async with page(url) as other, page(url) as client:
            for _ in range(500):
                await client.ack(1)
            assert (await client.next("bye"))["reason"] == "more than 200 messages a second"
            assert await client.end() == (1008, "more than 200 messages a second")
            await other.say(type="ping", client_ms=1)
            assert (await other.next())["type"] == "pong"

    run(main())


def test_too_many_clients_are_told_and_places_become_free(serve):
    hub = Hub()
    _, url = serve(hub, max_clients=2)

    async def main():
        async with page(url) as first:
            async with page(url) as second:
                await second.say(type="ping", client_ms=1)
                await second.next()
                async with page(url) as third:
                    assert "2 clients are connected" in (await third.next())["reason"]
                    assert (await third.end())[0] == 1013
            while len(hub.figures()["clients"]) > 1:
                await asyncio.sleep(0.01)
            async with page(url) as fourth:
                for client in (first, fourth):
                    await client.say(type="ping", client_ms=1)
                    assert (await client.next())["type"] == "pong"

    run(main())


def test_a_stalled_client_gives_way_where_all_places_are_taken(serve):
    hub = Hub(HubConfig(stalled_s=0.02))
    hub.show(1, frame(1))
    _, url = serve(hub, max_clients=1)

    async def main():
        async with page(url) as stalled:
            await stalled.next("frame")
            await asyncio.sleep(0.1)
            async with page(url) as new:
                assert (await new.next())["seq"] == 1
                assert "another client came" in (await stalled.next("bye"))["reason"]

    run(main())


# --- who may come ---


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_pages_of_other_sites_are_refused(serve, origin):
    _, url = serve()

    async def main():
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with page(url, headers={"Origin": origin}):
                pass
        assert refused.value.status == 403
        async with page(url, headers={"Origin": url.rstrip("/")}) as own:
            await own.say(type="ping", client_ms=1)
            await own.next("pong")

    run(main())


def test_a_browser_without_origin_is_refused(serve):
    _, url = serve()

    async def main():
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with page(url, headers={"Sec-Fetch-Mode": "websocket"}):
                pass

    run(main())


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1.evil.example:{port}"]
)
def test_other_hosts_are_refused(serve, host):
    server, url = serve()
    headers = {"Host": host.format(port=server.port)}
    status, _, body = run(get(url, headers=headers))
    assert status == 403 and b"Host" in body
    assert run(get(url, "/js/app.js", headers=headers))[0] == 403
    assert run(get(url, headers={"Host": f"localhost:{server.port}"}))[0] != 403

    async def main():
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with page(url, headers={**headers, "Origin": f"http://{headers['Host']}"}):
                pass

    run(main())


def test_a_token_is_asked_for_everywhere(serve):
    server, url = serve(token=TOKEN, files={"/volume.nii.gz": lambda: ("application/gzip", b"secret")})
    base = f"http://127.0.0.1:{server.port}"
    assert url == f"{base}/?token={TOKEN}"
    for path in ("/", "/js/app.js", "/volume.nii.gz", "/none", f"/?token={TOKEN}x", "/?token="):
        status, headers, body = run(get(base, path))
        assert status == 403 and b"token" in body and b"secret" not in body
        assert "Set-Cookie" not in headers and TOKEN.encode() not in body
    assert run(get(base, f"/volume.nii.gz?token={TOKEN}"))[2] == b"secret"

    async def main():
        for query in ("", "?token=", "?token=" + "x" * 16):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                async with page(f"{base}/{query}"):
                    pass
        async with page(url) as client:
            await client.say(type="ping", client_ms=1)
            await client.next("pong")

    run(main())


def test_the_token_becomes_a_cookie_that_opens_everything(serve):
    server, url = serve(token=TOKEN, files={"/volume.nii.gz": lambda: ("application/gzip", b"data")})
    status, headers, _ = run(get(f"http://127.0.0.1:{server.port}", f"/?token={TOKEN}"))
    cookie = headers["Set-Cookie"]
    assert status == 303 and headers["Location"] == "/"
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and f"usreg_{server.port}={TOKEN}" in cookie

    async def main():
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of IP addresses
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            async with session.get(url) as answer:  # follows the redirect with the cookie
                assert answer.status == 200 and TOKEN not in str(answer.url)
            base = f"http://127.0.0.1:{server.port}"
            async with session.get(base + "/volume.nii.gz") as answer:
                assert await answer.read() == b"data"
            async with session.ws_connect(base.replace("http", "ws") + "/ws", origin=base) as connection:
                await Page(connection).say(type="ping", client_ms=1)
                assert (await Page(connection).next())["type"] == "pong"

    run(main())


def test_a_link_from_another_site_still_gets_in(serve):
    server, _ = serve(token=TOKEN)
    headers = {"Sec-Fetch-Site": "cross-site"}
    status, got, _ = run(get(f"http://127.0.0.1:{server.port}", f"/?token={TOKEN}", headers=headers))
    assert status == 200 and got["Refresh"] == "0; url=/" and "SameSite=Strict" in got["Set-Cookie"]


def test_all_interfaces_need_a_token_that_is_made(serve):
    server, url = serve(host="0.0.0.0")
    query = urlsplit(url).query
    assert query.startswith("token=") and len(query) > 30
    assert run(get(f"http://127.0.0.1:{server.port}"))[0] == 403
    assert run(get(f"http://127.0.0.1:{server.port}", f"/?{query}"))[0] == 303
    assert run(get(url.split("?")[0], f"?{query}"))[0] == 303  # the printed address is this machine
    headers = {"Host": f"evil.example:{server.port}"}
    assert run(get(f"http://127.0.0.1:{server.port}", f"/?{query}", headers=headers))[0] == 403


def listening(port: int) -> set[str]:
    """Local addresses, hexadecimal, of listening sockets with this port."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(address)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc/net")
def test_it_listens_on_loopback_only(serve):
    assert listening(serve()[0].port) == {"0100007F"}
    assert listening(serve(host="localhost")[0].port) == {"0100007F"}
    assert listening(serve(host="0.0.0.0")[0].port) == {"00000000"}


# --- files and headers ---


def test_headers_of_every_answer(serve):
    _, url = serve()
    for path in ("/", "/none", "/ws", "/../../secret"):
        _, headers, _ = run(get(url, path))
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "unsafe-inline" not in policy and "'unsafe-eval'" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] in ("no-store", "no-cache") and headers["Server"] == "usreg"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/none.js", "/%2e%2e/server.py", "/..%2fserver.py", "/js/..%2f..%2fserver.py", "/js",
                                  "/server.py", "//etc/passwd", "/js%00/app.js", "/.git"])  # fmt: skip
def test_other_files_are_not_served(serve, path):
    server, _ = serve()

    async def main():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.split()[1] in (b"404", b"400"), answer[:200]

    run(main())


def test_types_of_the_page(serve):
    _, url = serve()
    for path, kind in (
        ("/", "text/html"),
        ("/js/wire.js", "text/javascript"),
        ("/vendor/uplot/uPlot.min.css", "text/css"),
    ):
        status, headers, body = run(get(url, path))
        assert status == 200 and headers["Content-Type"] == f"{kind}; charset=utf-8" and body
        etag = {"If-None-Match": headers["ETag"]}
        assert run(get(url, path, headers=etag))[0] == 304


def test_other_methods_are_refused(serve):
    _, url = serve()

    async def main():
        async with aiohttp.ClientSession() as session:
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                async with session.request(method, url, data=b"x" * 100_000) as answer:
                    assert answer.status == 405

    run(main())


def test_files_of_the_session(serve, tmp_path):
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
    status, headers, body = run(get(url, "/volume.nii.gz"))
    assert (status, body, headers["Content-Type"], headers["Cache-Control"]) == (
        200,
        b"volume",
        "application/gzip",
        "no-store",
    )
    assert made and made[0] != "view"
    status, headers, body = run(get(url, "/labels.nii.gz"))
    assert (status, body, headers["Content-Type"]) == (200, b"labels", "application/gzip")
    assert headers["Cache-Control"] == "no-store"
    assert run(get(url, "/gone"))[0] == 404
    status, _, body = run(get(url, "/missing"))
    assert status == 404 and body == b"this session has no labels"
    status, _, body = run(get(url, "/broken"))
    assert status == 500 and b"secret" not in body


# --- beginning and end ---


def test_a_port_in_use_is_told(serve):
    server, url = serve()
    with pytest.raises(PortInUseError, match=f"{server.port}.*another port") as told:
        serve(port=server.port)
    assert isinstance(told.value, UsregError) and isinstance(told.value, OSError)
    assert run(get(url))[0] == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "name.invalid"])
def test_hosts_that_are_not_this_machine(serve, host):
    with pytest.raises(ConfigError, match="address of this machine"):
        serve(host=host)


def test_stop_tells_clients_and_frees_the_port(serve):
    hub = Hub()
    server, url = serve(hub)

    async def main():
        async with page(url) as client, page(url) as silent:
            await client.say(type="ping", client_ms=1)
            await client.next()
            ending = asyncio.create_task(asyncio.to_thread(server.stop))
            assert (await client.next("bye"))["reason"] == "the server stops"
            assert await client.end() == (1001, "the server stops")
            assert (await silent.end())[0] == 1001
            await ending

    run(main())
    server.stop()
    assert not hub.watched
    hub.show(1, frame(1))  # a source that goes on shows to nobody
    assert [t for t in threading.enumerate() if t.name == "view"] == []
    socket.create_server(("127.0.0.1", server.port)).close()
    assert run(get(server.start()))[0] == 200  # and may begin again


def test_stop_does_not_wait_for_a_client_that_does_not_read(serve):
    hub = Hub()
    server, url = serve(hub)
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as client:
        client.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        client.recv(1024)
        hub.show(1, pack({}, {"image": np.zeros(16_000_000, np.uint8)}))
        client.recv(1)
        server.stop()
    assert [t for t in threading.enumerate() if t.name == "view"] == [] and not hub.watched


@pytest.mark.parametrize(
    "settings", [{"port": -1}, {"port": 70_000}, {"max_clients": 0}, {"max_message_bytes": 1}, {"token": "weak"}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError):
        ViewConfig(**settings)
