"""What an mp4 claims is weighed before FFmpeg, which believes every table, may open it."""

import io

import pytest
from media_maker import write_media
from mp4_boxes import box, fragmented, full, movie, table, words

from mirasol_hf.processing.box_scan_mirasol import check_boxes
from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits
from mirasol_hf.processing.media_mirasol import probe_media
from mirasol_hf.processing.media_source_mirasol import MediaSource
from mirasol_hf.processing.stream_source_mirasol import StreamSource

MANY = 2**25
LYING = {"stsz": (1, MANY), "stts": ((MANY, 1),)}
EDITS = box(b"edts", table(b"elst", [(200_000, 0, 0x10000)] * 3000))
WIDE_EDITS = box(b"edts", full(b"elst", words(2000) + words(0, 9, 0, 0, 0x10000) * 2000, version=1))
PICTURE = full(b"hdlr", words(0) + b"pict" + bytes(13))


def location(kind: bytes) -> bytes:
    return full(b"dref", words(1) + full(kind, b"file:///etc/passwd\0"))


# Each of these costs FFmpeg from half a gigabyte up while opening, or leads it to another file.
HOSTILE = {
    "samples": (movie(**LYING), "stsz"),
    "behind an unknown box": (movie(**LYING, first=box(b"abcd", b"12345678")), "stsz"),
    "without any first box": (movie(**LYING, first=b""), "stsz"),
    "in a free box": (movie(**LYING, header=b"free"), "stsz"),
    "in user data": (movie(**LYING, inside=b"udta"), "stsz"),
    "in a sample entry": (movie(**LYING, inside=b"wave"), "stsz"),
    "in an unknown box": (movie(**LYING, inside=b"zzzz"), "stsz"),
    "in sample descriptions": (movie(extra=full(b"stsd", words(1) + bytes(90) + table(b"stco", [], MANY))), "stco"),
    "after loose bytes": (movie(extra=full(b"meta", b"abcd" + PICTURE + table(b"stsc", [], MANY))), "stsc"),
    "in many tracks": (movie(tracks=60, stsz=(1, 10**5), stts=((10**5, 1),), data=bytes(10**5)), "stsz"),
    "chunks of sound": (movie(handler=b"soun", stsc=((1, 2**31 - 1, 1),), stco=(48,) * 40), "max_packets"),
    "edits": (movie(stsz=(1, 20_000), stts=((20_000, 1),), edts=EDITS, data=bytes(20_000)), "max_packets"),
    "wide edits": (movie(stsz=(1, 20_000), stts=((20_000, 1),), edts=WIDE_EDITS, data=bytes(20_000)), "max_packets"),
    "runs": (fragmented(5000, 5000), "trun"),
    "one run": (fragmented(1, MANY), "trun"),
    "items": (full(b"meta", PICTURE + full(b"iloc", bytes(2) + words(2**28), version=2)) + bytes(99), "iloc"),
    "item names": (full(b"meta", PICTURE + full(b"iinf", words(2**28), version=1)) + bytes(99), "iinf"),
    "compressed": (movie(extra=box(b"cmov", bytes(20))), "compressed"),
    "nested": (movie(extra=b"".join(words(8 * (40 - i)) + b"udta" for i in range(40))), "deeper"),
    "address": (movie(dref=location(b"url ")), "another file"),
    "alias": (movie(dref=location(b"alis")), "another file"),
    "alias behind an unknown box": (movie(dref=location(b"alis"), first=box(b"abcd", b"")), "another file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_headers_that_lie_are_refused_before_opening(kind):
    content, cause = HOSTILE[kind]
    with pytest.raises(MediaError, match=f"refused before opening.*{cause}"):
        check_boxes(MediaSource(content, MediaLimits()), MediaLimits())


def test_headers_that_do_not_lie_pass():
    sound = {"handler": b"soun", "stts": ((8000, 1),), "stsc": ((1, 8000, 1),)}
    two_bytes, half_bytes = {"stsz": (2, 8000), "data": bytes(16000)}, {"stsz": (1, 8000), "data": bytes(4000)}
    edited = box(b"edts", table(b"elst", [(100, 0xFFFFFFFF, 0x10000), (4000, 0, 0x10000)]))
    for content in (
        movie(),
        movie(**sound, **two_bytes),
        movie(**sound, **half_bytes),
        movie(edts=edited),
        fragmented(3, 50),
    ):
        check_boxes(MediaSource(content, MediaLimits()), MediaLimits())


def test_an_hour_of_plain_sound_may_come_through_a_pipe():
    seconds = {"stts": ((3600 * 8000, 1),), "stsc": ((1, 8000, 1),), "stco": range(48, 3648), "stsz": (2, 3600 * 8000)}
    content = io.BytesIO(movie(handler=b"soun", **seconds))
    content.seekable = lambda: False
    source = StreamSource(content, MediaLimits())
    while source.read(4096):
        pass
    source.raise_failure()
    assert source.size == len(content.getvalue())


@pytest.mark.parametrize("content", [b"\0" * 5000, b"\xff" * 5000, bytes(range(256)) * 300, b"words and words " * 400])
def test_what_is_no_mp4_passes(content):
    check_boxes(MediaSource(content, MediaLimits()), MediaLimits())


def test_the_number_of_boxes_is_limited():
    content = box(b"free", b"") * 100
    check_boxes(MediaSource(content, MediaLimits(max_boxes=100)), MediaLimits(max_boxes=100))
    with pytest.raises(MediaError, match="more than 99 boxes"):
        check_boxes(MediaSource(content, MediaLimits()), MediaLimits(max_boxes=99))


def test_a_film_behind_an_unknown_box_is_read(tmp_path):
    content = write_media(
        tmp_path / "clip.mp4", seconds=1.0, options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    )
    facts = probe_media(io.BytesIO(box(b"zzzz", b"12345678") + content.read_bytes()))
    assert facts["video"]["frames"] == 25 and facts["audio"] is not None
