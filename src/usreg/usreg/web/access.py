# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the server: token, Host (against DNS rebinding) and Origin (against other sites' pages)."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from ..errors import ConfigError

ALL_INTERFACES = ("", "0.0.0.0", "::")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
TOKEN_BYTES = 24


def is_loopback(host: str) -> bool:
    """This machine only. A name other than localhost is not trusted to be."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_token(host: str, token: str) -> str:
    """The given token; for a host that others can reach, a new one where none is given; "" on loopback.

    Raises:
        ConfigError: a token that a URL cannot carry, or that is guessed too easily.
    """
    if token:
        if len(token) < 16 or not all(c.isascii() and (c.isalnum() or c in "-_.~") for c in token):
            raise ConfigError("a token must have 16 or more letters, digits or -_.~; leave it out to have one made")
        return token
    return "" if is_loopback(host) else secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True)
class Access:
    """What a request must show. `port` is the one that is bound.

    Args:
        host: as configured.
        names: of this machine, allowed in Host where all interfaces are bound.
        token: "" where none is asked for.
    """

    host: str
    port: int
    token: str = ""
    names: tuple[str, ...] = ()

    @property
    def cookie(self) -> str:
        """Cookies know no ports: one name for each."""
        return f"usreg_{self.port}"

    def refusal(self, headers: Mapping[str, str], query_token: str) -> str:
        """Why a request is refused; "" when it may pass."""
        if not self.host_allowed(headers.get("Host", "")):
            return "the Host header does not name this server: open the address that it printed"
        if self.token and not (self.knows(query_token) or self.knows(self._cookie_token(headers))):
            return "no valid token: open the address with ?token=... that the server printed"
        return ""

    def socket_refusal(self, headers: Mapping[str, str]) -> str:
        """Why a WebSocket is refused: a browser must come from a page of this server."""
        origin = headers.get("Origin")
        if origin is None:
            browser = any(name.lower().startswith("sec-fetch-") for name in headers)
            return "a browser must send its Origin" if browser else ""
        scheme, _, place = origin.partition("://")
        same = scheme in ("http", "https") and place.lower() == headers.get("Host", "").lower()
        return "" if same else "the page comes from another site than this server"

    def knows(self, token: str) -> bool:
        """Compared in constant time."""
        return hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    def host_allowed(self, header: str) -> bool:
        """Host names this machine, with the right port."""
        name, port = split_host(header.lower())
        if port != self.port:
            return False
        if name in LOCAL_NAMES or name == self.host.lower():
            return True
        return self.host in ALL_INTERFACES and (_is_address(name) or name in self.names)

    def _cookie_token(self, headers: Mapping[str, str]) -> str:
        try:
            morsel = SimpleCookie(headers.get("Cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return morsel.value if morsel else ""


def split_host(header: str) -> tuple[str, int]:
    """Name and port of a Host header; port 80 where none is given, -1 where it is malformed."""
    name, colon, port = header.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = header, "80"
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    elif ":" in name:
        return "", -1
    return name, int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1


def host_in_url(host: str) -> str:
    """An IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
