"""Addresses: refused unless allowed, and then a server that misbehaves costs no more than the limits say."""

import http.server
import socket
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from media_maker import write_media

from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks
from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits
from mirasol_hf.processing.media_mirasol import probe_media, read_media

ALLOWED = MediaLimits(allow_urls=True, max_url_bytes=2_000_000, max_url_seconds=20.0)
HASTY = MediaLimits(allow_urls=True, max_url_bytes=2_000_000, max_url_seconds=0.2)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one good clip and many bad manners."""

    clip = b""
    secret = ""
    asked: list[str] = []
    gone = threading.Event()

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        try:
            getattr(self, self.path.strip("/").split("/")[0])()
        except (BrokenPipeError, ConnectionResetError):
            self.gone.set()

    def head(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def good(self):
        self.head(Content_Length=str(len(self.clip)))
        self.wfile.write(self.clip)

    def unmeasured(self):
        self.head()
        self.wfile.write(self.clip)

    def short(self):
        self.head(Content_Length=str(len(self.clip) * 2))
        self.wfile.write(self.clip)

    def chunked(self):
        self.wfile.write(CHUNKED)
        for first in range(0, len(self.clip), 5000):
            part = self.clip[first : first + 5000]
            self.wfile.write(b"%x;note=1\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")

    def short_chunk(self):
        self.wfile.write(CHUNKED + b"%x\r\n" % (2 * len(self.clip)) + self.clip)

    def no_last_chunk(self):
        self.wfile.write(CHUNKED + b"%x\r\n%s\r\n" % (len(self.clip), self.clip))

    def moved(self):
        self.head(302, Location="/good")

    def file(self):
        self.head(302, Location=f"file://{self.secret}")

    def ftp(self):
        self.head(301, Location="ftp://127.0.0.1/clip.mp4")

    def loop(self):
        self.head(307, Location=f"/loop/{len(self.asked)}")

    def missing(self):
        self.send_error(404)

    def empty(self):
        self.head(Content_Length="0")

    def playlist(self):
        self.head()
        self.wfile.write(f"#EXTM3U\n#EXTINF:1,\n{self.secret}\n#EXT-X-ENDLIST\n".encode())

    def announced(self):
        self.head(Content_Length=str(10**15))
        self.wfile.write(self.clip)

    def endless(self):
        self.head()
        while True:
            self.wfile.write(bytes(1 << 16))

    def moved_endless(self):
        self.head(302, Location="/good")
        while True:
            self.wfile.write(bytes(1 << 16))

    def endless_continue(self):
        self.repeat(b"HTTP/1.1 100 Continue\r\nX-Padding: %s\r\n\r\n" % (b"x" * 60_000))

    def endless_head(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.repeat(b"X-Padding: %s\r\n" % (b"x" * 60_000))

    def endless_size(self):
        self.wfile.write(CHUNKED)
        self.repeat(b"0" * (1 << 16))

    def endless_trailers(self):
        self.wfile.write(CHUNKED + b"0\r\n")
        self.repeat(b"X-Trailer: %s\r\n" % (b"x" * 60_000))

    def words(self):
        self.wfile.write(b"HTTP/1.1 404 \x1b[31m%s\r\n\r\n" % (b"x" * 60_000))

    def no_status(self):
        self.wfile.write(b"\x1b[31m%s\r\n\r\n" % (b"x" * 60_000))

    def repeat(self, data):
        while True:
            self.wfile.write(data)

    def drip(self, start=b"HTTP/1.1 200 OK\r\n\r\n", drop=b"0"):
        self.wfile.write(start)
        while True:
            self.wfile.write(drop)
            time.sleep(0.05)

    def moved_drip(self):
        self.drip(b"HTTP/1.1 302 Found\r\nLocation: /drip\r\n\r\n")

    def drip_measured(self):
        self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")

    def drip_status(self):
        self.drip(b"", b"H")

    def drip_header(self):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Header: ")

    def drip_continue(self):
        self.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n")

    def drip_size(self):
        self.drip(CHUNKED)

    def drip_extension(self):
        self.drip(CHUNKED + b"100;")

    def drip_chunks(self):
        self.drip(CHUNKED, b"1\r\n0\r\n")

    def drip_trailers(self):
        self.drip(CHUNKED + b"0\r\n", b"X: 1\r\n")

    def silent(self):
        self.head()
        self.wfile.flush()
        time.sleep(4)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    Handler.clip = write_media(folder / "clip.mp4", seconds=1.0).read_bytes()
    Handler.secret = str(folder / "clip.mp4")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        running.block_on_close = False
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def plan(duration):
    return plan_chunks(0.0, duration, num_chunks=2, frames_per_chunk=4)


def test_addresses_are_refused_and_not_asked(server, processor):
    Handler.asked.clear()
    with pytest.raises(MediaError, match=f"{server}/good.*allow_urls"):
        probe_media(f"{server}/good")
    with pytest.raises(MediaError, match="allow_urls"):
        processor(videos=f"{server}/good")
    with pytest.raises(MediaError, match="allow_urls"):
        processor.iter_chunks(f"{server}/good")
    assert not Handler.asked


@pytest.mark.parametrize("path", ["good", "unmeasured", "moved", "moved_endless", "chunked"])
def test_an_allowed_address_gives_what_the_file_gives(server, path):
    fetched, stored = read_media(f"{server}/{path}", plan, limits=ALLOWED), read_media(Handler.clip, plan)
    assert np.array_equal(fetched.frames, stored.frames)
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(fetched.audio, stored.audio))


def test_an_allowed_address_can_be_streamed(server, processor):
    assert len(list(processor.iter_chunks(f"{server}/good", chunk_seconds=0.5, limits=ALLOWED))) >= 2


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("file", "leads to file://.*only http and https"),
        ("ftp", "leads to ftp://.*only http and https"),
        ("loop", "too many redirects"),
        ("missing", "status 404"),
        ("words", "status 404"),
        ("no_status", "cannot be read"),
        ("short", "broke off after {size} of {twice} bytes"),
        ("short_chunk", "broke off after {size} bytes"),
        ("no_last_chunk", "broke off after {size} bytes"),
        ("empty", "empty"),
        ("playlist", "not a readable media file"),
        ("announced", "max_url_bytes"),
        ("endless", "max_url_bytes"),
        ("endless_continue", "max_url_bytes"),
        ("endless_head", "max_url_bytes|cannot be read"),
        ("endless_size", "max_url_bytes|cannot be read"),
        ("endless_trailers", "max_url_bytes"),
    ],
)
def test_what_is_no_honest_file_is_refused(server, path, cause):
    cause = cause.format(size=len(Handler.clip), twice=2 * len(Handler.clip))
    with pytest.raises(MediaError, match=rf"(?s){server}/{path}.*({cause})") as error:
        probe_media(f"{server}/{path}", ALLOWED)
    assert len(str(error.value)) < 400 and str(error.value).isprintable()


DRIPPING = [name for name in vars(Handler) if name.startswith("drip")]


@pytest.mark.parametrize("path", [*DRIPPING, "moved_drip", "silent"])
def test_a_server_that_holds_the_reader_is_left(server, path):
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"{server}/{path}.*max_url_seconds"):
        probe_media(f"{server}/{path}", HASTY)
    assert time.monotonic() - began < 2.0


def test_the_body_of_a_redirect_is_not_received(server):
    tracemalloc.start()
    try:
        read_media(f"{server}/moved_endless", plan, limits=ALLOWED)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert Handler.gone.wait(10)


def test_a_name_that_nobody_resolves_is_left(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: over.wait(10) and [])
    with pytest.raises(TimeoutError, match="max_url_seconds"):
        probe_media("http://localhost/clip.mp4", HASTY)
    over.set()


def test_no_end_of_time_is_a_limit_too(server):
    assert probe_media(f"{server}/good", replace(ALLOWED, max_url_seconds=float("inf")))["video"]


@pytest.mark.parametrize("scheme", ["ftp", "rtsp", "tcp", "udp", "file", "gopher", "rtmp", "data", "concat"])
def test_no_other_scheme_is_ever_read(scheme, media):
    with pytest.raises(MediaError, match="only http and https"):
        probe_media(f"{scheme}://{media}/clip.mp4", ALLOWED)


def test_a_server_that_is_not_there():
    with pytest.raises(MediaError, match=r"http://127\.0\.0\.1:9/clip\.mp4"):
        probe_media("http://127.0.0.1:9/clip.mp4", ALLOWED)
