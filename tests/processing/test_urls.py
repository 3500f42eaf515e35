"""Addresses: refused unless allowed, and then a server that misbehaves costs no more than the limits say."""

import http.server
import threading
import time

import numpy as np
import pytest
from media_maker import write_media

from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks
from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits
from mirasol_hf.processing.media_mirasol import probe_media, read_media

ALLOWED = MediaLimits(allow_urls=True, max_url_bytes=2_000_000, max_url_seconds=20.0)
HASTY = MediaLimits(allow_urls=True, max_url_bytes=2_000_000, max_url_seconds=1.0)


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

    def drip(self):
        self.head()
        for _ in range(600):
            self.wfile.write(b"\0")
            time.sleep(0.05)

    def silent(self):
        self.head()
        self.wfile.flush()
        time.sleep(4)

    def slow_head(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for i in range(600):
            self.wfile.write(b"X-Header-%d: 1\r\n" % (i % 90) if i < 90 else b"x")
            time.sleep(0.05)


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


@pytest.mark.parametrize("path", ["good", "unmeasured", "moved", "short"])
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
        ("missing", "404|Not Found"),
        ("empty", "empty"),
        ("playlist", "not a readable media file"),
        ("announced", "max_url_bytes"),
        ("endless", "max_url_bytes"),
    ],
)
def test_what_is_no_honest_file_is_refused(server, path, cause):
    with pytest.raises(MediaError, match=rf"(?s){server}/{path}.*({cause})"):
        probe_media(f"{server}/{path}", ALLOWED)


@pytest.mark.parametrize("path", ["drip", "silent", "slow_head"])
def test_a_server_that_holds_the_reader_is_left(server, path):
    with pytest.raises(TimeoutError, match=rf"{server}/{path}.*max_url_seconds"):
        probe_media(f"{server}/{path}", HASTY)


@pytest.mark.parametrize("scheme", ["ftp", "rtsp", "tcp", "udp", "file", "gopher", "rtmp", "data", "concat"])
def test_no_other_scheme_is_ever_read(scheme, media):
    with pytest.raises(MediaError, match="only http and https"):
        probe_media(f"{scheme}://{media}/clip.mp4", ALLOWED)


def test_a_server_that_is_not_there():
    with pytest.raises(MediaError, match=r"http://127\.0\.0\.1:9/clip\.mp4"):
        probe_media("http://127.0.0.1:9/clip.mp4", ALLOWED)
