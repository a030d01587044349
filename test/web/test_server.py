# SPDX-License-Identifier: Apache-2.0
"""The server over real sockets: frames, what the page says, beginning and end."""

import asyncio
import socket
import threading

import pytest

from usreg.errors import ConfigError, PortInUseError, UsregError
from usreg.web.hub import Hub, HubConfig
from usreg.web.server import ViewConfig
from usreg.web.wire import pack

# --- frames and kept messages ---


def test_kept_messages_and_frames_arrive(serve, talk):
    hub = Hub()
    hub.keep("hello", pack({"type": "hello"}))
    hub.keep("organ/1", pack({"type": "organ"}))
    hub.show(1, talk.frame(1))
    _, url = serve(hub)

    async def main():
        async with talk.page(url) as client:
            assert [(await client.next())["type"] for _ in range(3)] == ["hello", "frame", "organ"]
            hub.keep("status", pack({"type": "status"}))
            assert (await client.next())["type"] == "status"
            await client.ack(1)
            hub.show(2, talk.frame(2))
            assert (await client.next())["seq"] == 2
        async with talk.page(url) as client:  # the next one gets all of it again
            assert [(await client.next())["type"] for _ in range(3)] == ["hello", "status", "frame"]

    talk.run(main())


def test_a_slow_client_gets_the_newest_and_a_quick_one_all(serve, talk):
    hub = Hub()
    _, url = serve(hub)

    async def main():
        async with talk.page(url) as slow, talk.page(url) as quick:
            while len(hub.figures()["clients"]) < 2:
                await asyncio.sleep(0.01)
            for seq in range(1, 21):
                hub.show(seq, talk.frame(seq))
                assert (await quick.next())["seq"] == seq
                await quick.ack(seq)
            assert (await slow.next())["seq"] == 1
            await slow.ack(1)
            assert (await slow.next())["seq"] == 20
            await slow.ack(20)
            while not all(c["acknowledged"] == c["sent"] for c in hub.figures()["clients"]):
                await asyncio.sleep(0.01)
            assert sorted(c["sent"] for c in hub.figures()["clients"]) == [2, 20]

    talk.run(main())


def test_a_client_that_reads_nothing_costs_one_frame(serve, talk):
    hub = Hub(HubConfig(stalled_s=0.05))
    _, url = serve(hub)
    large = talk.large(0)

    async def main():
        _, writer = await talk.raw_socket(url)
        while not hub.watched:
            await asyncio.sleep(0.01)
        async with talk.page(url) as other:
            for seq in range(10):
                hub.show(seq, large)
                hub.keep("status", talk.status())
                await other.next("frame")
                await other.ack(seq)
            await asyncio.sleep(0.1)
            stuck = hub.figures()["clients"][0]
            assert stuck["stalled"] and stuck["sent"] == 1
            assert stuck["bytes"] <= len(large) + 2 * len(talk.status())
            await other.lives()
        writer.transport.abort()

    talk.run(main())


def test_watched_follows_the_connections(serve, talk):
    hub, told = Hub(), []
    hub.on_watch(told.append)
    _, url = serve(hub)

    async def main():
        async with talk.page(url):
            while not told:
                await asyncio.sleep(0.01)
        while len(told) < 2:
            await asyncio.sleep(0.01)

    talk.run(main())
    assert told == [True, False] and not hub.watched


# --- what the page says ---


def test_pings_and_commands_are_answered(serve, talk):
    controls = talk.Controls()
    _, url = serve(controls=controls)

    async def main():
        async with talk.page(url) as client:
            await client.say(type="ping", client_ms=12.5)
            pong = await client.next()
            assert pong["type"] == "pong" and pong["client_ms"] == 12.5 and pong["server_s"] > 0
            await client.say(type="command", id=7, name="seek", args={"index": 3})
            assert await client.next() == {"type": "reply", "id": 7, "ok": True, "message": "", "data": {"n": 1}}
            await client.say(type="command", id=8, name="seek", args={"index": "3"})
            answer = await client.next()
            assert answer["id"] == 8 and not answer["ok"] and "index" in answer["message"]

    talk.run(main())
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


def test_malformed_messages_are_answered_and_the_session_goes_on(serve, talk):
    controls = talk.Controls()
    _, url = serve(controls=controls)

    async def main():
        async with talk.page(url) as client:
            for text in MALFORMED:
                await client.socket.send_str(text)
                answer = await client.next()
                assert answer["type"] == "reply" and answer["id"] is None and not answer["ok"], text[:60]
                assert 0 < len(answer["message"]) < 400
            await client.socket.send_bytes(b"USR1")
            assert not (await client.next())["ok"]
            await client.lives()

    talk.run(main())
    assert controls.calls == []


@pytest.mark.parametrize("name, args", [("format", {}), (None, {}), ("reset", []), ("reset", {"a": 1}), (3, 4)])
def test_unknown_commands_are_answered(serve, talk, name, args):
    _, url = serve()

    async def main():
        async with talk.page(url) as client:
            await client.say(type="command", id=1, name=name, args=args)
            answer = await client.next()
            assert answer["id"] == 1 and not answer["ok"] and answer["message"]

    talk.run(main())


def test_a_read_only_view_refuses_commands(serve, talk):
    controls = talk.Controls()
    _, url = serve(controls=controls, read_only=True)

    async def main():
        async with talk.page(url) as client:
            await client.say(type="command", id=1, name="reset", args={})
            assert "read only" in (await client.next())["message"]

    talk.run(main())
    assert controls.calls == []


# --- beginning and end ---


def test_a_port_in_use_is_told(serve, talk):
    server, url = serve()
    with pytest.raises(PortInUseError, match=f"{server.port}.*another port") as told:
        serve(port=server.port)
    assert isinstance(told.value, UsregError) and isinstance(told.value, OSError)
    assert talk.get(url)[0] == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "name.invalid"])
def test_hosts_that_are_not_this_machine(serve, talk, host):
    with pytest.raises(ConfigError, match="address of this machine"):
        serve(host=host)


def test_stop_tells_clients_and_frees_the_port(serve, talk):
    hub = Hub()
    server, url = serve(hub)

    async def main():
        async with talk.page(url) as client, talk.page(url) as silent:
            await client.say(type="ping", client_ms=1)
            await client.next()
            ending = asyncio.create_task(asyncio.to_thread(server.stop))
            assert (await client.next("bye"))["reason"] == "the server stops"
            assert await client.end() == (1001, "the server stops")
            assert (await silent.end())[0] == 1001
            await ending

    talk.run(main())
    server.stop()
    assert not hub.watched
    hub.show(1, talk.frame(1))  # a source that goes on shows to nobody
    assert [t for t in threading.enumerate() if t.name == "view"] == []
    socket.create_server(("127.0.0.1", server.port)).close()
    assert talk.get(server.start())[0] == 200  # and may begin again


def test_stop_does_not_wait_for_a_client_that_does_not_read(serve, talk):
    hub = Hub()
    server, url = serve(hub)

    async def main():
        reader, writer = await talk.raw_socket(url)
        hub.show(1, talk.large(1))
        await reader.readexactly(1)
        await asyncio.to_thread(server.stop)
        writer.transport.abort()

    talk.run(main())
    assert [t for t in threading.enumerate() if t.name == "view"] == [] and not hub.watched


@pytest.mark.parametrize(
    "settings", [{"port": -1}, {"port": 70_000}, {"max_clients": 0}, {"max_message_bytes": 1}, {"token": "weak"}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError):
        ViewConfig(**settings)
