"""The bytes behind an http or https address, within limits of size and time.

FFmpeg never sees the network: the body is written to a nameless temporary file first, which is then read as any other.
"""

import http.client
import tempfile
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from .media_limits_mirasol import MediaError, MediaLimits

_SCHEMES = ("http", "https")
_BLOCK = 1 << 16


def fetch_url(url: str, limits: MediaLimits) -> BinaryIO:
    """Download what an address leads to.

    Args:
        url: http or https address.
        limits: `allow_urls` must be set; `max_url_bytes`, `max_url_seconds` and `max_redirects` bound the transfer.

    Returns:
        A temporary file, open for reading, without a name.

    Raises:
        MediaError: if addresses are not allowed, the scheme is another one (also after a redirect), the server answers
            with an error, or the body is larger than allowed; naming the address.
        TimeoutError: if the transfer takes too long.
    """
    _check_scheme(url, url)
    if not limits.allow_urls:
        raise MediaError(f"{url}: addresses are not read; give a local file, or MediaLimits(allow_urls=True)")
    end = time.monotonic() + limits.max_url_seconds
    watch = _Watch(limits.max_url_seconds)
    target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
    try:
        with watch, _opener(url, limits, watch).open(url, timeout=limits.max_url_seconds) as answer:
            _copy(answer, target, url, limits, end)
    except (OSError, ValueError, http.client.HTTPException) as error:
        target.close()
        if isinstance(error, MediaError):
            raise
        if watch.fired or time.monotonic() > end or isinstance(error, TimeoutError):
            raise _too_slow(url, limits) from error
        raise MediaError(f"{url}: cannot be read ({getattr(error, 'reason', None) or error})") from error
    target.seek(0)
    return target


def _copy(answer: Any, target: BinaryIO, url: str, limits: MediaLimits, end: float) -> None:
    announced = answer.headers.get("Content-Length", "")
    taken = int(announced) if announced.isdigit() else 0
    count = 0
    while max(taken, count) <= limits.max_url_bytes:
        data = answer.read1(_BLOCK)
        if time.monotonic() > end:
            raise _too_slow(url, limits)
        if not data:
            return
        count += target.write(data)
    raise MediaError(f"{url}: more than MediaLimits.max_url_bytes={limits.max_url_bytes} bytes")


def _too_slow(url: str, limits: MediaLimits) -> TimeoutError:
    return TimeoutError(f"{url}: the transfer took longer than MediaLimits.max_url_seconds={limits.max_url_seconds:g}")


def _check_scheme(url: str, asked: str) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in _SCHEMES:
        how = "" if url == asked else f" leads to {url}"
        raise MediaError(f"{asked}:{how} only http and https addresses can be read, not {scheme}")


class _Watch:
    """Cuts the connections of a transfer off when its time is over.

    The timeout of a socket starts anew with every byte, so a server that drips could hold a reader for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.fired = False
        self.connections: list[http.client.HTTPConnection] = []
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True

    def __enter__(self) -> "_Watch":
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()

    def _fire(self) -> None:
        self.fired = True
        for connection in self.connections:
            if connection.sock is not None:
                try:
                    connection.sock.shutdown(2)
                except OSError:
                    continue

    def connect(self, kind: Any, host: str, **options: Any) -> http.client.HTTPConnection:
        """A new connection that is watched."""
        connection: http.client.HTTPConnection = kind(host, **options)
        self.connections.append(connection)
        return connection


class _Http(urllib.request.HTTPHandler):
    watch: _Watch

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(self.watch.connect, http.client.HTTPConnection), req)  # type: ignore[arg-type]


class _Https(urllib.request.HTTPSHandler):
    watch: _Watch

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(self.watch.connect, http.client.HTTPSConnection), req)  # type: ignore[arg-type]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows an answer elsewhere only to http and https, and not for ever."""

    def __init__(self, asked: str, most: int) -> None:
        self.asked = asked
        self.left = most

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_scheme(newurl, self.asked)
        self.left -= 1
        if self.left < 0:
            raise MediaError(f"{self.asked}: too many redirects")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        # The library's own error for another scheme would not name what was asked for.
        place = headers.get("location") or headers.get("uri") or ""
        if urlsplit(place).scheme:
            _check_scheme(place, self.asked)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener(url: str, limits: MediaLimits, watch: _Watch) -> urllib.request.OpenerDirector:
    """An opener that knows http and https and nothing else: no file, ftp or data addresses."""
    plain, secure = _Http(), _Https()
    plain.watch = secure.watch = watch
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        plain,
        secure,
        _Redirects(url, limits.max_redirects),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
