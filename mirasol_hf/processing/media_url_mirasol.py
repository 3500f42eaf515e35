"""The bytes behind an http or https address, within limits of size and time.

FFmpeg never sees the network: the body is written to a nameless temporary file first, which is then read as any other.
Whatever a server sends (headers, redirects, the framing of chunks, the body) comes in through `_Incoming`, where it
counts against one limit of bytes and one of time.
"""

import http.client
import io
import sys
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
# Characters of a server's own words that a message repeats.
_QUOTED = 200


def fetch_url(url: str, limits: MediaLimits) -> BinaryIO:
    """Download what an address leads to.

    Args:
        url: http or https address.
        limits: `allow_urls` must be set; `max_url_bytes`, `max_url_seconds` and `max_redirects` bound the transfer.

    Returns:
        A temporary file, open for reading, without a name.

    Raises:
        MediaError: if addresses are not allowed, the scheme is another one (also after a redirect), the server answers
            with an error or sends more than allowed, or the body ends early; naming the address.
        TimeoutError: if the transfer takes too long.
    """
    _check_scheme(url, url)
    if not limits.allow_urls:
        raise MediaError(f"{url}: addresses are not read; give a local file, or MediaLimits(allow_urls=True)")
    target = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
    transfer = _Transfer(url, limits, target)
    # In a thread, since nothing else bounds a resolver of names, or a name of many addresses that do not answer.
    worker = threading.Thread(target=transfer.run, daemon=True)
    worker.start()
    try:
        worker.join(min(limits.max_url_seconds, threading.TIMEOUT_MAX))
        failure = transfer.too_slow() if worker.is_alive() else transfer.failure
        if failure is not None:
            raise failure
    except BaseException:
        transfer.stop()
        target.close()
        raise
    target.seek(0)
    return target


class _Transfer:
    """One transfer, redirects included, and what it may still cost.

    Attributes:
        failure: what has ended it early.
    """

    def __init__(self, url: str, limits: MediaLimits, target: BinaryIO) -> None:
        self.url, self.limits, self.target = url, limits, target
        self.failure: BaseException | None = None
        self._end = time.monotonic() + limits.max_url_seconds
        self._received = self._written = 0

    def run(self) -> None:
        """Write the body to `target`; what goes wrong is kept as `failure`."""
        try:
            with _opener(self).open(self.url, timeout=self.seconds()) as answer:
                self._copy(answer)
        except BaseException as error:
            # `http.client` takes an error of this class inside the size of a chunk for a wrong size.
            self.failure = self.failure or self._told(error)

    def stop(self) -> None:
        """Let nothing more come in."""
        self._end = -1.0

    def seconds(self) -> float:
        """Seconds that are left, at least for one look.

        Raises:
            TimeoutError: when there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.too_slow()
        return min(left, threading.TIMEOUT_MAX)

    def count(self, received: int) -> None:
        """Count bytes that came in.

        Raises:
            MediaError: when they are too many.
        """
        self._received += received
        if self._received > self.limits.max_url_bytes:
            self.failure = self._too_large()
            raise self.failure

    def too_slow(self) -> TimeoutError:
        """The error that says so."""
        return TimeoutError(
            f"{self.url}: the transfer took longer than MediaLimits.max_url_seconds={self.limits.max_url_seconds:g}"
        )

    def _too_large(self) -> MediaError:
        return MediaError(f"{self.url}: more than MediaLimits.max_url_bytes={self.limits.max_url_bytes} bytes")

    def _copy(self, answer: Any) -> None:
        announced = answer.headers.get("Content-Length", "")
        # The framing of a body in chunks says itself where it ends.
        length = int(announced) if announced.isdecimal() and "Transfer-Encoding" not in answer.headers else None
        if length is not None and length > self.limits.max_url_bytes:
            raise self._too_large()
        while data := answer.read1(_BLOCK):
            self._written += self.target.write(data)
        if length is not None and self._written < length:
            raise MediaError(f"{self.url}: the transfer broke off after {self._written} of {length} bytes")

    def _told(self, error: BaseException) -> BaseException:
        """The error as the caller gets it: naming the address, without a server's flood of words."""
        if isinstance(error, MediaError) or not isinstance(error, (OSError, ValueError, http.client.HTTPException)):
            return error
        if isinstance(error, TimeoutError) or time.monotonic() > self._end:
            told: Exception = self.too_slow()
        elif isinstance(error, http.client.IncompleteRead):
            told = MediaError(f"{self.url}: the transfer broke off after {self._written} bytes")
        elif isinstance(error, urllib.error.HTTPError):
            error.close()
            told = MediaError(f"{self.url}: cannot be read (the server answers with status {error.code})")
        else:
            told = MediaError(f"{self.url}: cannot be read ({_quoted(getattr(error, 'reason', error))})")
        told.__cause__ = error
        return told


def _check_scheme(url: str, asked: str) -> None:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in _SCHEMES:
        how = "" if url == asked else f" leads to {_quoted(url)}"
        raise MediaError(f"{asked}:{how} only http and https addresses can be read, not {_quoted(scheme)}")


def _quoted(words: object) -> str:
    return "".join(character if character.isprintable() else "?" for character in str(words)[:_QUOTED])


class _Incoming(io.RawIOBase):
    """What comes in on a socket, as `http.client` reads it.

    The timeout of a socket starts anew with every byte, so before each it is set to what the whole transfer has left.
    """

    def __init__(self, sock: Any, transfer: _Transfer) -> None:
        self._socket, self._transfer = sock, transfer
        self._bytes = sock.makefile("rb", buffering=0)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The socket's file, as `http.client` asks for it."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(self._transfer.seconds())
        count = int(self._bytes.readinto(buffer))
        self._transfer.count(count)
        return count

    def close(self) -> None:
        self._bytes.close()
        super().close()


def _connection(kind: Any, transfer: _Transfer, host: str, **options: Any) -> http.client.HTTPConnection:
    """A connection whose answers, a proxy's too, come in through `_Incoming`."""
    connection: http.client.HTTPConnection = kind(host, **options)

    def answer(sock: Any, *arguments: Any, **more: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(cast(Any, _Incoming(sock, transfer)), *arguments, **more)

    connection.response_class = cast(Any, answer)
    return connection


class _Http(urllib.request.HTTPHandler):
    transfer: _Transfer

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(_connection, http.client.HTTPConnection, self.transfer), req)  # type: ignore[arg-type]


class _Https(urllib.request.HTTPSHandler):
    transfer: _Transfer

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(partial(_connection, http.client.HTTPSConnection, self.transfer), req)  # type: ignore[arg-type]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows an answer elsewhere only to http and https, and not for ever."""

    # The library's own bounds; `left` is the one that holds.
    max_redirections = max_repeats = sys.maxsize

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
        # Closed before the library reads it: nobody wants the body of a redirect.
        fp.close()
        # The library's own error for another scheme would not name what was asked for.
        place = headers.get("location") or headers.get("uri") or ""
        if urlsplit(place).scheme:
            _check_scheme(place, self.asked)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener(transfer: _Transfer) -> urllib.request.OpenerDirector:
    """An opener that knows http and https and nothing else: no file, ftp or data addresses."""
    plain, secure = _Http(), _Https()
    plain.transfer = secure.transfer = transfer
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        plain,
        secure,
        _Redirects(transfer.url, transfer.limits.max_redirects),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
