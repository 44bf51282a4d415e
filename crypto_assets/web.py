"""HTTP client with a hard deadline per request and a limit on the body's size.

Does not belong here: the meaning of requests and replies.

`requests` only has timeouts per socket operation: a server that trickles bytes or sends `100 Continue` forever blocks
it without end, and name resolution has no timeout at all. So each request runs in a thread, and at the deadline its
sockets are shut down, which ends every wait: TLS handshake, headers, body.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT_S = 5.0
"""Per address; a host name may resolve to several."""
BODY_LIMIT = 8 * 1024 * 1024
CHUNK = 64 * 1024


class NoReply(Exception):
    """No usable reply; the message gives the reason without address, headers or secrets."""


class Unreachable(NoReply):
    """The connection failed or broke; the message names the kind of error."""


class TooLate(NoReply):
    """The reply was not complete at the deadline."""


class BadBody(NoReply):
    """The body is larger than allowed, or its compression is damaged."""


@dataclass(frozen=True)
class Reply:
    """A complete reply: header names in lower case, body decoded."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class _Line:
    """A `requests` session with duplicates of its sockets, so that another thread can shut them down.

    The duplicates stay valid when TLS wraps a socket and when the library hands one to a reply still being read.
    """

    def __init__(self, headers: Mapping[str, str], *, trust_env: bool) -> None:
        import requests

        self._lock = threading.Lock()
        self._copies: set[socket.socket] = set()
        self._closed: list[socket.socket] = []
        self._given_up = False
        self.session = requests.Session()
        self.session.trust_env = trust_env
        self.session.headers.update(headers)
        adapter = _adapter(self)
        self.session.mount("https://", adapter)
        self.session.mount("http://", adapter)

    def opened(self, connection: socket.socket) -> socket.socket:
        """Register a new connection; raises TimeoutError once the line has been given up."""
        with self._lock:
            if self._given_up:
                connection.close()
                raise TimeoutError("the request was given up")
            copy = connection.dup()
            self._copies.add(copy)
            return copy

    def closed(self, copy: socket.socket) -> None:
        """Mark a connection as closed by the library, although a reply may still be read from it."""
        with self._lock:
            self._closed.append(copy)

    def settle(self) -> None:
        """Release connections closed by the library; call between requests."""
        with self._lock:
            for copy in self._closed:
                self._copies.discard(copy)
                copy.close()
            self._closed.clear()

    def give_up(self) -> None:
        """Shut down every connection, which wakes all waiters."""
        with self._lock:
            self._given_up = True
            for copy in self._copies:
                with contextlib.suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)
                copy.close()
            self._copies.clear()
            self._closed.clear()


class Client:
    """Sends requests one at a time over persistent connections; does not follow redirects.

    Args:
        headers: Sent with every request.
        trust_env: Use the environment's proxies.
        name: Name of the sending threads, for logs.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, *, trust_env: bool = True, name: str = "http") -> None:
        self._headers, self._trust_env, self._name = dict(headers or {}), trust_env, name
        self._line: _Line | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._line is not None:
            self._line.session.close()
            self._line.give_up()
            self._line = None

    def send(
        self,
        method: str,
        url: str,
        *,
        deadline_s: float,
        body_limit: int = BODY_LIMIT,
        body: bool = True,
        **given: Any,
    ) -> Reply:
        """Send one request.

        Args:
            method: GET, HEAD or POST.
            url: Address.
            deadline_s: Seconds until the last byte of the reply, including name resolution and handshake.
            body_limit: Maximum size of the decoded body in bytes.
            body: Read the body of the reply.
            given: `params`, `headers`, `json` of requests.

        Raises:
            NoReply: One of its subclasses, by kind of failure.
        """
        line = self._line = self._line or _Line(self._headers, trust_env=self._trust_env)
        done, outcome = threading.Event(), []

        def work() -> None:
            try:
                outcome.append(_exchange(line.session, method, url, deadline_s, body_limit, body, given))
            except BaseException as error:  # noqa: BLE001 - re-raised in the waiting thread
                outcome.append(error)
            finally:
                done.set()

        threading.Thread(target=work, name=self._name, daemon=True).start()
        in_time = False
        try:
            in_time = done.wait(deadline_s)
        finally:
            if not in_time:  # also if the wait was interrupted
                line.give_up()
                self._line = None
        if not in_time:
            raise TooLate(f"no whole reply within {deadline_s:g} s")
        line.settle()
        (result,) = outcome
        if isinstance(result, BaseException):
            raise result
        return result


def _exchange(
    session: requests.Session,
    method: str,
    url: str,
    deadline_s: float,
    body_limit: int,
    body: bool,
    given: Mapping[str, Any],
) -> Reply:
    import requests
    from urllib3.exceptions import DecodeError, HTTPError, ReadTimeoutError

    try:
        with session.request(
            method,
            url,
            timeout=(min(CONNECT_TIMEOUT_S, deadline_s), deadline_s),
            allow_redirects=False,
            stream=True,
            **given,
        ) as response:
            content = bytearray()
            while body and (chunk := response.raw.read1(CHUNK, decode_content=True)):
                content += chunk
                if len(content) > body_limit:
                    raise BadBody(f"the body is larger than {body_limit:,} bytes")
            declared = response.headers.get("content-length")
            if body and method != "HEAD" and declared and declared.isdecimal() and response.raw.tell() < int(declared):
                raise NoReply(f"the reply ended before its {declared} bytes")
            return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(content))
    except DecodeError as error:
        raise BadBody("the compressed body is damaged") from error
    except (requests.exceptions.ReadTimeout, ReadTimeoutError) as error:
        raise TooLate(f"no whole reply within {deadline_s:g} s") from error
    except (requests.exceptions.RequestException, HTTPError, ValueError) as error:
        # The exception's text may contain address and credentials; its class is sufficient.
        raise Unreachable(type(error).__name__) from None


def _adapter(line: _Line) -> Any:
    """A `requests` adapter that registers its connections with the line."""
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Tracked(HTTPConnection):
        copy: socket.socket | None = None

        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            self.copy = line.opened(made)
            return made

        def close(self) -> None:
            super().close()
            if self.copy is not None:
                line.closed(self.copy)
                self.copy = None

    class TrackedTls(Tracked, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls: Any = Tracked

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls: Any = TrackedTls

    pools = {"http": Pool, "https": TlsPool}

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **kwargs)
            if not proxy.lower().startswith("socks"):  # SOCKS proxies need their own pool classes
                manager.pool_classes_by_scheme = pools
            return manager

    return Adapter()
