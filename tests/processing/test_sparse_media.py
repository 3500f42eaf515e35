"""Files whose time stamps claim hours that hold nothing: answered or refused, within the memory of what is there."""

import sys
import warnings
from pathlib import Path

import pytest
from child import in_child
from media_maker import write_sparse

from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits
from mirasol_hf.processing.media_mirasol import probe_media

FAR = 170_000.0
HEADROOM = 4 * 10**8
FOUND = Path(__file__).resolve().parents[3] / "shared" / "media" / "found"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the child's memory limit needs /proc")

# Seconds of pictures and of sound, and whether the chunks of one second that lie between are refused.
CASES = {
    "late_sound": ([0, 0.04], [FAR], True),
    "late_pictures": ([FAR, FAR + 0.04], [0], True),
    "both_late": ([FAR], [FAR], False),
    "gap": ([0, 40_000], [0, 3000], True),
    "stills": ([second * 3000 for second in range(50)], [], True),
    "a_minute": ([0, 60], [0, 60], False),
}


def outcomes(processor, source, limits=None):
    """What each way to read a file makes of it."""
    ways = {
        "one chunk": lambda: processor(videos=source, num_chunks=1)["chunk_seconds"].shape[1],
        "16 chunks": lambda: processor(videos=source, num_chunks=16)["chunk_seconds"].shape[1],
        "seconds": lambda: processor(videos=source, chunk_seconds=1.0, limits=limits)["chunk_seconds"].shape[1],
        "stream": lambda: sum(1 for _ in processor.iter_chunks(source, chunk_seconds=1.0, limits=limits)),
        "probe": lambda: probe_media(source)["duration"],
    }
    found = {}
    warnings.simplefilter("ignore")
    for name, way in ways.items():
        try:
            found[name] = way()
        except MediaError as error:
            found[name] = str(error)
    return found


@pytest.mark.parametrize(("case", "ending"), [*((case, "mkv") for case in CASES), ("late_sound", "mp4")])
def test_hours_of_nothing(processor, tmp_path, case, ending):
    pictures, sounds, refused = CASES[case]
    path = write_sparse(tmp_path / f"{case}.{ending}", pictures, sounds, audio="aac" if ending == "mp4" else "flac")
    found = in_child(outcomes, _Timed(processor), path, MediaLimits(max_idle_chunks=300), headroom=HEADROOM)
    assert (found["one chunk"], found["16 chunks"]) == (1, 16) and found["probe"] > 0
    for way in ("seconds", "stream"):
        if refused:
            assert (
                path.name in found[way] and "max_idle_chunks=300 chunks of 1 s; longer chunks are fewer" in found[way]
            )
        else:
            assert found[way] <= 62


class _Timed:
    """A processor that tells the seconds of its chunks."""

    def __init__(self, processor):
        self.processor, self.iter_chunks = processor, processor.iter_chunks

    def __call__(self, **options):
        return self.processor(**options, return_timestamps=True)


def test_longer_chunks_of_the_same_stream_are_read(processor, tmp_path):
    path = write_sparse(tmp_path / "late.mkv", [0, 0.04], [FAR], audio="flac")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the file does not end early
        chunks = list(processor.iter_chunks(path, chunk_seconds=5000.0))
    assert len(chunks) == 35 and chunks[-1]["audio_mask"].item() == 1
    assert [chunk["audio_mask"].item() for chunk in chunks[:-1]] == [0] * 34
    with pytest.raises(MediaError, match="max_idle_chunks=20 chunks of 5000 s"):
        list(processor.iter_chunks(path, chunk_seconds=5000.0, limits=MediaLimits(max_idle_chunks=20)))


def test_slow_pictures_and_short_chunks_are_not_idle(processor, tmp_path):
    """A picture every five seconds, in chunks that mostly see none: nothing is idle before `max_skew`."""
    path = write_sparse(tmp_path / "slow.mkv", [5 * k for k in range(5)], [])
    limits = MediaLimits(max_idle_chunks=0)
    assert len(list(processor.iter_chunks(path, chunk_seconds=0.5, limits=limits))) >= 40
    assert processor(videos=path, chunk_seconds=0.5, limits=limits)["video_mask"].shape[1] >= 40


def test_sound_of_a_low_rate_counts_as_what_it_becomes(tmp_path):
    """Ten hours at 1000 samples a second are 144 MB, at the model's rate 2.3 GB."""
    path = write_sparse(tmp_path / "slow.mkv", [], [0, 36_000], rate=1000, audio="pcm_s16le")
    with pytest.raises(MediaError, match="max_expansion"):
        probe_media(path)


@pytest.mark.parametrize(
    "path", sorted(FOUND.glob("*.m*")) + sorted(FOUND.glob("*.[tw]*")), ids=lambda path: path.name
)
def test_files_that_broke_the_package(processor, path):
    found = in_child(outcomes, _Timed(processor), path, headroom=10**9)
    assert all(not isinstance(result, str) or path.name in result for result in found.values())
