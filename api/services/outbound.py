"""Requests to addresses that tenants name. They never reach this network's inside.

The name is resolved once, every address is checked, and the connection goes to exactly the address that was checked:
a name that resolves otherwise a moment later changes nothing. httpx's transport, without its client: no redirect is even
read, no cookie kept, no proxy asked; and no more than the head of the answer, within a time.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httpx

from api.domain.errors import invalid

TIMEOUT: Final = httpx.Timeout(10, connect=5)
MOST_SECONDS: Final = 15.0  # whatever a receiver sends to keep us waiting
HTTPS_PORTS: Final = frozenset({443, 8443})
# Global by their bits, but tunnels into whatever IPv4 address they carry.
TUNNELS: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "2002::/16", "2001::/32")))
HOST: Final = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+", re.IGNORECASE)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class OutboundError(Exception):
    """The request was not made, or got no answer. The text holds no address of this network."""


class Outbound:
    """`allow_private` is the operator's word that their tenants may name any address, over plain HTTP too."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._http = httpx.AsyncHTTPTransport(trust_env=False)

    async def close(self) -> None:
        await self._http.aclose()

    def check_url(self, url: str) -> None:
        """What can be said of a URL without looking it up. Raises ServiceError(INVALID)."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise invalid("The URL cannot be read.", param="url") from error
        host = parts.hostname or ""
        if not HOST.fullmatch(host) or parts.username or parts.password:
            raise invalid("The URL needs a host, and no user in it.", param="url")
        if self._allow_private:
            if parts.scheme not in {"http", "https"}:
                raise invalid("The URL must begin with https:// or http://.", param="url")
            return
        if parts.scheme != "https" or (port or 443) not in HTTPS_PORTS:
            raise invalid("The URL must begin with https:// and use port 443 or 8443.", param="url")
        if is_literal(host) and not is_public(ipaddress.ip_address(host)):
            raise invalid("The URL must not name a private address.", param="url")

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> int:
        """The answer's status. Raises OutboundError."""
        parts = urlsplit(url)
        host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._resolved(host, port)
        try:
            async with asyncio.timeout(MOST_SECONDS):
                request = httpx.Request(
                    "POST",
                    pinned(parts, address, port),
                    content=body,
                    headers={**headers, "Host": parts.netloc},
                    extensions={"sni_hostname": host, "timeout": TIMEOUT.as_dict()},
                )
                reply = await self._http.handle_async_request(request)
                await reply.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise OutboundError(type(error).__name__) from error
        return reply.status_code

    async def _resolved(self, host: str, port: int) -> Address:
        try:
            async with asyncio.timeout(5):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError) as error:
            raise OutboundError("the name does not resolve") from error
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        if not self._allow_private and not all(map(is_public, addresses)):
            raise OutboundError("the name resolves to a private address")
        return addresses[0]


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in tunnel for tunnel in TUNNELS):
            return False
    return address.is_global and not address.is_multicast


def pinned(parts: SplitResult, address: Address, port: int) -> str:
    host = f"[{address}]" if address.version == 6 else str(address)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}:{port}{parts.path or '/'}{query}"
