"""HTTP whose every request ends in time, whatever the other side does.

Belongs here: a deadline for a whole exchange and a limit for its body. Does not belong here: what is asked and what an
answer means.

`requests` knows limits for each wait at a socket only: a server that sends a byte now and then, or `100 Continue` for
ever, keeps it busy without end; and a name server may take its time before there is a socket. So the request runs in
a thread, and at the deadline its connections are shut down under it, which ends every wait: for the handshake of TLS,
for headers, for the body.
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
"""For one address of a host, of which a name may have several."""
BODY_LIMIT = 8 * 1024 * 1024
CHUNK = 64 * 1024


class NoReply(Exception):
    """There is no usable reply; the message says why, without address, header or secret."""


class Unreachable(NoReply):
    """No connection, or it broke; the message names the kind of error."""


class TooLate(NoReply):
    """The whole reply was not there at the deadline."""


class BadBody(NoReply):
    """The body is larger than allowed, or its compression is damaged."""


class CutShort(NoReply):
    """The connection ended before the declared end of the body."""


@dataclass(frozen=True)
class Reply:
    """A whole reply: header names in lower case, body decoded."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class _Line:
    """A session of requests and copies of its sockets, by which they can be shut down from another thread.

    The copies stay ours when TLS takes a socket over, and when the library hands one to a reply that it still reads.
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
        """Take a new connection in; refused once the line was given up."""
        with self._lock:
            if self._given_up:
                connection.close()
                raise TimeoutError("the request was given up")
            copy = connection.dup()
            self._copies.add(copy)
            return copy

    def closed(self, copy: socket.socket) -> None:
        """Note that the library is done with a connection, but for a reply that it may still read."""
        with self._lock:
            self._closed.append(copy)

    def settle(self) -> None:
        """Between requests: let go of what the library has closed."""
        with self._lock:
            for copy in self._closed:
                self._copies.discard(copy)
                copy.close()
            self._closed.clear()

    def give_up(self) -> None:
        """Shut every connection down; whoever waits for one is woken."""
        with self._lock:
            self._given_up = True
            for copy in self._copies:
                with contextlib.suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)
                copy.close()
            self._copies.clear()
            self._closed.clear()


class Client:
    """Sends requests, one at a time, over kept connections; redirects are not followed.

    Args:
        headers: Sent with every request.
        trust_env: Whether proxies of the environment are used.
        name: Of the threads that send, by which log lines can be told.
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
        """One request.

        Args:
            method: GET, HEAD or POST.
            url: Address.
            deadline_s: Seconds from now to the last byte of the reply, name look-up and handshake included.
            body_limit: Bytes of a decoded body that are read at most.
            body: Whether the body of the reply is read.
            given: `params`, `headers`, `json` of requests.

        Raises:
            NoReply: Its subclass says what there was instead of a reply.
        """
        line = self._line = self._line or _Line(self._headers, trust_env=self._trust_env)
        done, outcome = threading.Event(), []

        def work() -> None:
            try:
                outcome.append(_exchange(line.session, method, url, deadline_s, body_limit, body, given))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
                outcome.append(error)
            finally:
                done.set()

        threading.Thread(target=work, name=self._name, daemon=True).start()
        in_time = False
        try:
            in_time = done.wait(deadline_s)
        finally:
            if not in_time:  # also where the wait was interrupted
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
                raise CutShort(f"the reply ended before its {declared} bytes")
            return Reply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, bytes(content))
    except DecodeError as error:
        raise BadBody("the compressed body is damaged") from error
    except (requests.exceptions.ReadTimeout, ReadTimeoutError) as error:
        raise TooLate(f"no whole reply within {deadline_s:g} s") from error
    except (requests.exceptions.RequestException, HTTPError, ValueError) as error:
        # The text of the exception may hold address and credentials; its class says enough.
        raise Unreachable(type(error).__name__) from None


def _adapter(line: _Line) -> Any:
    """An adapter of requests whose connections are known to the line."""
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Known(HTTPConnection):
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

    class KnownTls(Known, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls: Any = Known

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls: Any = KnownTls

    pools = {"http": Pool, "https": TlsPool}

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **kwargs)
            if not proxy.lower().startswith("socks"):  # those have connections of their own
                manager.pool_classes_by_scheme = pools
            return manager

    return Adapter()
