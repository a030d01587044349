# SPDX-License-Identifier: Apache-2.0
"""Clients that may not come or behave badly: a clear answer each, and the others go on."""

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from usreg.web.hub import Hub, HubConfig

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("extra", [1, 5_000_000])
def test_a_message_that_is_too_large_ends_that_client_only(serve, talk, extra):
    _, url = serve(max_message_bytes=1000)

    async def main():
        async with talk.page(url) as other, talk.page(url) as client:
            await client.socket.send_str("x" * 1000)  # as large as allowed
            assert not (await client.next())["ok"]
            await client.socket.send_str("x" * (1000 + extra))
            assert await client.end() == (1009, "a message may have 1000 bytes at most")
            await other.lives()

    talk.run(main())


def test_a_client_that_floods_is_closed_others_go_on(serve, talk):
    _, url = serve()

    async def main():
        async with talk.page(url) as other, talk.page(url) as client:
            with suppress(ConnectionError):  # the server may close before the last
                for _ in range(500):
                    await client.ack(1)
            assert (await client.next("bye"))["reason"] == "more than 200 messages a second"
            assert await client.end() == (1008, "more than 200 messages a second")
            await other.lives()

    talk.run(main())


def test_a_flood_of_a_client_that_does_not_read_ends_too(serve, talk):
    hub = Hub()
    _, url = serve(hub)

    async def main():
        _, writer = await talk.raw_socket(url)
        while not hub.watched:
            await asyncio.sleep(0.01)
        hub.show(1, talk.large(1))
        await asyncio.sleep(0.05)
        writer.write(talk.raw_text('{"type": "ping", "client_ms": 1}') * 500)
        while hub.watched:
            await asyncio.sleep(0.02)
        writer.transport.abort()
        async with talk.page(url) as other:
            await other.lives()

    talk.run(main())


def test_a_flood_of_control_frames_ends_too(serve, talk):
    hub = Hub()
    _, url = serve(hub)

    async def main():
        reader, writer = await talk.raw_socket(url)
        writer.write(talk.raw_text("beat", opcode=9))
        assert await reader.readexactly(6) == b"\x8a\x04beat"
        writer.write(talk.raw_text("", opcode=9) * 200 + talk.raw_text("", opcode=10) * 200)
        assert b"messages a second" in await reader.read()
        writer.transport.abort()

    talk.run(main())


@pytest.mark.parametrize("said", ['{"type": "ping", "client_ms": 1}', "nonsense", "too large"])
def test_clients_that_read_nothing_cannot_stay(serve, talk, said):
    """Their answers cannot be delivered, nor the reason why they are sent away."""
    hub = Hub(HubConfig(max_answers=4))
    _, url = serve(hub, max_message_bytes=256)

    async def main():
        _, writer = await talk.raw_socket(url)
        while not hub.watched:
            await asyncio.sleep(0.01)
        hub.show(1, talk.large(1))
        await asyncio.sleep(0.05)
        large = bytes([0x81, 0xFE, 0x10, 0x00, 0, 0, 0, 0])  # of 4096 bytes
        writer.write(large if said == "too large" else talk.raw_text(said) * 50)
        while hub.watched:
            await asyncio.sleep(0.02)
        writer.transport.abort()

    talk.run(main())


def test_too_many_clients_are_told_and_places_become_free(serve, talk):
    hub = Hub()
    _, url = serve(hub, max_clients=2)

    async def main():
        async with talk.page(url) as first:
            async with talk.page(url) as second:
                await second.say(type="ping", client_ms=1)
                await second.next()
                async with talk.page(url) as third:
                    assert "2 clients are connected" in (await third.next())["reason"]
                    assert (await third.end())[0] == 1013
            while len(hub.figures()["clients"]) > 1:
                await asyncio.sleep(0.01)
            async with talk.page(url) as fourth:
                for client in (first, fourth):
                    await client.lives()

    talk.run(main())


def test_a_stalled_client_gives_way_where_all_places_are_taken(serve, talk):
    hub = Hub(HubConfig(stalled_s=0.02))
    hub.show(1, talk.frame(1))
    _, url = serve(hub, max_clients=1)

    async def main():
        async with talk.page(url) as stalled:
            await stalled.next("frame")
            await asyncio.sleep(0.1)
            async with talk.page(url) as new:
                assert (await new.next())["seq"] == 1
                assert "another client came" in (await stalled.next("bye"))["reason"]

    talk.run(main())


# --- who may come ---


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_pages_of_other_sites_are_refused(serve, talk, origin):
    _, url = serve()

    async def main():
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with talk.page(url, headers={"Origin": origin}):
                pass
        assert refused.value.status == 403
        async with talk.page(url, headers={"Origin": url.rstrip("/")}) as own:
            await own.lives()

    talk.run(main())


def test_a_browser_without_origin_is_refused(serve, talk):
    _, url = serve()

    async def main():
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with talk.page(url, headers={"Sec-Fetch-Mode": "websocket"}):
                pass

    talk.run(main())


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1.evil.example:{port}"]
)
def test_other_hosts_are_refused(serve, talk, host):
    server, url = serve()
    headers = {"Host": host.format(port=server.port)}
    status, _, body = talk.get(url, headers=headers)
    assert status == 403 and b"Host" in body
    assert talk.get(url, "/js/app.js", headers=headers)[0] == 403
    assert talk.get(url, headers={"Host": f"localhost:{server.port}"})[0] != 403

    async def main():
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            async with talk.page(url, headers={**headers, "Origin": f"http://{headers['Host']}"}):
                pass

    talk.run(main())


def test_a_token_is_asked_for_everywhere(serve, talk):
    server, url = serve(token=TOKEN, files={"/volume.nii.gz": lambda: ("application/gzip", b"secret")})
    base = f"http://127.0.0.1:{server.port}"
    assert url == f"{base}/?token={TOKEN}"
    for path in ("/", "/js/app.js", "/volume.nii.gz", "/none", f"/?token={TOKEN}x", "/?token="):
        status, headers, body = talk.get(base, path)
        assert status == 403 and b"token" in body and b"secret" not in body
        assert "Set-Cookie" not in headers and TOKEN.encode() not in body
    assert talk.get(base, f"/volume.nii.gz?token={TOKEN}")[2] == b"secret"

    async def main():
        for query in ("", "?token=", "?token=" + "x" * 16):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                async with talk.page(f"{base}/{query}"):
                    pass
        async with talk.page(url) as client:
            await client.lives()

    talk.run(main())


def test_the_token_becomes_a_cookie_that_opens_everything(serve, talk):
    server, url = serve(token=TOKEN, files={"/volume.nii.gz": lambda: ("application/gzip", b"data")})
    status, headers, _ = talk.get(f"http://127.0.0.1:{server.port}", f"/?token={TOKEN}")
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
                await talk.Page(connection).say(type="ping", client_ms=1)
                assert (await talk.Page(connection).next())["type"] == "pong"

    talk.run(main())


def test_a_link_from_another_site_still_gets_in(serve, talk):
    server, _ = serve(token=TOKEN)
    headers = {"Sec-Fetch-Site": "cross-site"}
    status, got, _ = talk.get(f"http://127.0.0.1:{server.port}", f"/?token={TOKEN}", headers=headers)
    assert status == 200 and got["Refresh"] == "0; url=/" and "SameSite=Strict" in got["Set-Cookie"]


def test_all_interfaces_need_a_token_that_is_made(serve, talk):
    server, url = serve(host="0.0.0.0")
    query = urlsplit(url).query
    assert query.startswith("token=") and len(query) > 30
    assert talk.get(f"http://127.0.0.1:{server.port}")[0] == 403
    assert talk.get(f"http://127.0.0.1:{server.port}", f"/?{query}")[0] == 303
    assert talk.get(url.split("?")[0], f"?{query}")[0] == 303  # the printed address is this machine
    headers = {"Host": f"evil.example:{server.port}"}
    assert talk.get(f"http://127.0.0.1:{server.port}", f"/?{query}", headers=headers)[0] == 403


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
def test_it_listens_on_loopback_only(serve, talk):
    assert listening(serve()[0].port) == {"0100007F"}
    assert listening(serve(host="localhost")[0].port) == {"0100007F"}
    assert listening(serve(host="0.0.0.0")[0].port) == {"00000000"}
