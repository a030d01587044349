# SPDX-License-Identifier: Apache-2.0
"""Tokens, Host and Origin, and which files are served."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usreg.errors import ConfigError
from usreg.web.access import Access, choose_token, host_in_url, is_loopback, split_host
from usreg.web.pages import STATIC, static_file

TOKEN = "0123456789abcdef"


HERE = ("127.0.0.1", "localhost", "::1", "127.8.8.8")
ELSEWHERE = ("0.0.0.0", "", "::", "192.168.1.4", "lab-pc", "localhost.example.org")


@pytest.mark.parametrize("host, loopback", [(h, True) for h in HERE] + [(h, False) for h in ELSEWHERE])
def test_loopback(host, loopback):
    assert is_loopback(host) == loopback
    assert bool(choose_token(host, "")) != loopback
    assert choose_token(host, TOKEN) == TOKEN


def test_made_tokens_differ():
    assert len({choose_token("0.0.0.0", "") for _ in range(20)}) == 20
    assert len(choose_token("0.0.0.0", "")) >= 32


@pytest.mark.parametrize("token", ["short", "0123456789abcde ", "0123456789abcdef&x=1", "0123456789abcdéf", "a;b" * 9])
def test_weak_tokens(token):
    with pytest.raises(ConfigError):
        choose_token("127.0.0.1", token)


@pytest.mark.parametrize(
    "header, found",
    [
        ("a:80", ("a", 80)),
        ("a", ("a", 80)),
        ("[::1]:8090", ("::1", 8090)),
        ("[::1]", ("::1", 80)),
        ("::1", ("", -1)),
        ("a:b", ("a", -1)),
        ("a:²", ("a", -1)),
        ("a:", ("a", -1)),
        ("", ("", 80)),
        ("a:123456", ("a", -1)),
    ],
)
def test_host_headers(header, found):
    assert split_host(header) == found


@pytest.mark.parametrize(
    "host, header, fine",
    [
        ("127.0.0.1", "127.0.0.1:8090", True),
        ("127.0.0.1", "LOCALHOST:8090", True),
        ("127.0.0.1", "[::1]:8090", True),
        ("127.0.0.1", "127.0.0.1:8091", False),
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "evil.example:8090", False),
        ("127.0.0.1", "192.168.1.4:8090", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.1.4:8090", True),
        ("0.0.0.0", "lab-pc:8090", True),
        ("0.0.0.0", "evil.example:8090", False),
        ("lab-pc.clinic", "lab-pc.clinic:8090", True),
        ("lab-pc.clinic", "192.168.1.4:8090", False),
    ],
)
def test_which_hosts_are_this_server(host, header, fine):
    assert Access(host, 8090, names=("lab-pc",)).host_allowed(header) == fine


@given(st.text())
def test_odd_hosts_are_refused(header):
    assert not Access("127.0.0.1", 8090).host_allowed(header)


def test_tokens_by_address_and_cookie():
    access, host = Access("0.0.0.0", 8090, TOKEN), {"Host": "127.0.0.1:8090"}
    assert access.refusal(host, TOKEN) == ""
    assert access.refusal({**host, "Cookie": f"usreg_8090={TOKEN}; other=1"}, "") == ""
    for cookie in (f"usreg_8091={TOKEN}", "usreg_8090=x", "usreg_8090", ";;;=", "usreg_8090=" + TOKEN[:-1]):
        assert "token" in access.refusal({**host, "Cookie": cookie}, "")
    for token in ("", TOKEN + "0", "é" * 16, "\udc80"):
        assert "token" in access.refusal(host, token)
    assert Access("127.0.0.1", 8090).refusal(host, "anything") == ""


@pytest.mark.parametrize(
    "headers, fine",
    [
        ({"Origin": "http://127.0.0.1:8090"}, True),
        ({"Origin": "https://127.0.0.1:8090"}, True),
        ({"Origin": "http://localhost:8090"}, False),
        ({"Origin": "http://127.0.0.1:8091"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "file://127.0.0.1:8090"}, False),
        ({}, True),
        ({"sec-fetch-mode": "websocket"}, False),
    ],
)
def test_origins(headers, fine):
    refusal = Access("127.0.0.1", 8090).socket_refusal({"Host": "127.0.0.1:8090", **headers})
    assert (refusal == "") == fine


def test_addresses_in_urls():
    assert host_in_url("::1") == "[::1]" and host_in_url("127.0.0.1") == "127.0.0.1"


@pytest.fixture
def root(tmp_path):
    for name in ("static/index.html", "static/js/app.js", "static/.hidden.js", "static/notes.txt", "secret.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path / "static"


def test_files_of_the_page(root):
    assert static_file("js/app.js", root) == root / "js" / "app.js"
    for name in ("../secret.js", "js/../../secret.js", "js//app.js", "/index.html", ".hidden.js", "notes.txt", "js", "",
                 "js/../index.html", "..\\secret.js", "index.html\0", str(root / "index.html"), "none.js"):  # fmt: skip
        assert static_file(name, root) is None, name


@given(st.lists(st.sampled_from(["..", ".", "js", "app.js", "secret.js", "", "%2e%2e", "\\", "~"])).map("/".join))
def test_no_name_leads_out_of_the_folder(name):
    found = static_file(name)
    assert found is None or found.resolve().is_relative_to(STATIC.resolve())
