"""Media files through loaders: the same tensors from every kind of worker, and bad files skipped, raised, reported."""

import json
import os
import random
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from mirasol_hf.data.media_dataset import (
    MediaCollator,
    MediaDataset,
    MediaIterableDataset,
    MediaMap,
    MediaReader,
    collate_clips,
)
from mirasol_hf.data.media_report import MediaReport
from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits, MediaWarning

OPTIONS = {"num_chunks": 3, "return_timestamps": True}
TENSORS = (
    "pixel_values_videos",
    "video_mask",
    "input_features",
    "audio_mask",
    "video_timestamps",
    "chunk_seconds",
)


@pytest.fixture(scope="module")
def processor(random_parts):
    return random_parts[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scene_clip, other_clip):
    folder = tmp_path_factory.mktemp("bad and good")
    for name, clip in (("one.mp4", scene_clip), ("two.mp4", other_clip)):
        (folder / name).write_bytes(clip.read_bytes())
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no film\n" * 100)
    return folder


@pytest.fixture(scope="module")
def mixed(folder):
    """Good, empty, good, text, missing, good."""
    return [folder / name for name in ("one.mp4", "empty.mp4", "two.mp4", "text.mp4", "gone.mp4", "one.mp4")]


def _same(rows, others):
    assert len(rows) == len(others)
    for row, other in zip(rows, others):
        for name in TENSORS:
            assert torch.equal(row[name], other[name]), name


# Spawned workers import everything anew.
@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same_bits_and_one_report(processor, mixed, context) -> None:
    alone = MediaDataset(mixed, processor, on_error="skip", **OPTIONS)
    here = [alone[i] for i in range(len(alone))]
    data = MediaDataset(mixed, processor, on_error="skip", **OPTIONS)
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=context)
    _same(list(loader), here)
    bad = sorted({(Path(entry.file).name, entry.kind) for entry in data.report.entries()})
    assert bad == [("empty.mp4", "MediaError"), ("gone.mp4", "FileNotFoundError"), ("text.mp4", "MediaError")]
    assert os.getpid() not in {entry.process for entry in data.report.entries()}
    assert len(data.report) == 3
    assert data.report.summary() == ("3 files could not be read (FileNotFoundError 1, MediaError 2), 0 only in part")


def test_threads_give_the_same_bits(processor, folder) -> None:
    before = torch.get_num_threads()
    rows = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            limits = MediaLimits(max_threads=threads)
            rows.append(MediaDataset([folder / "two.mp4"], processor, limits=limits, **OPTIONS)[0])
    finally:
        torch.set_num_threads(before)
    _same(rows[1:], [rows[0]] * 2)


def test_bad_file_raises_with_its_name(processor, mixed) -> None:
    data = MediaDataset(mixed, processor, **OPTIONS)
    with pytest.raises(MediaError, match=r"empty\.mp4"):
        data[1]
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        data[4]
    assert len(data.report) == 2
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(MediaError, match=r"empty\.mp4"):
        list(loader)


def test_iterable_workers_share_the_files(processor, mixed) -> None:
    examples = [{"video": path, "name": index} for index, path in enumerate(mixed)]
    data = MediaIterableDataset(examples, processor, on_error="skip", **OPTIONS)
    assert [row["name"] for row in data] == [0, 2, 5]
    assert len(data.report) == 3
    data.report.clear()
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(row["name"] for row in loader) == [0, 2, 5]
    assert len(data.report.entries()) == 3


class _SharesItselfOut(IterableDataset):
    def __init__(self, path) -> None:
        self.path = path

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        yield {"video": self.path, "name": 10 + worker.id}


def test_source_that_shares_itself_out_is_left_to_it(processor, folder) -> None:
    data = MediaIterableDataset(_SharesItselfOut(folder / "one.mp4"), processor, **OPTIONS)
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(row["name"] for row in loader) == [10, 11]


def test_collated_clips_are_those_of_the_processor(processor, folder) -> None:
    paths = [folder / "one.mp4", folder / "two.mp4"]
    data = MediaDataset([{"video": path, "answer": path.stem} for path in paths], processor, fps=3.0)
    batch = next(iter(DataLoader(data, batch_size=2, collate_fn=MediaCollator())))
    whole = processor(videos=paths, fps=3.0, return_tensors="pt")
    assert batch.pop("answer") == ["one", "two"]
    assert set(batch) == set(whole)
    for name, tensor in whole.items():
        assert torch.equal(batch[name], tensor), name
    assert not batch["video_mask"].all()


def test_another_example_takes_the_place_of_one_that_is_skipped(processor, mixed) -> None:
    examples = [{"video": path, "name": index} for index, path in enumerate(mixed)]
    data = MediaDataset(examples, processor, on_error="skip", **OPTIONS)
    random.seed(0)
    before = random.getstate()
    names = [data[i]["name"] for i in range(len(data))]
    assert random.getstate() == before, "the random state of a training run is not touched"
    assert [names[i] for i in (0, 2, 5)] == [0, 2, 5]
    assert {names[i] for i in (1, 3, 4)} <= {0, 2, 5}
    assert [data[i - 6]["name"] for i in range(6)] == names, "the same each time, and counted from the end"
    assert len(data.report) == 3
    batches = list(DataLoader(data, batch_size=1, collate_fn=MediaCollator()))
    assert [len(batch["video_mask"]) for batch in batches] == [1] * 6


def test_collator_leaves_out_none(processor, folder) -> None:
    row = MediaDataset([folder / "one.mp4"], processor, **OPTIONS)[0]
    assert len(MediaCollator()([row, None])["video_mask"]) == 1
    assert MediaCollator(len)([row, None]) == 1
    with pytest.raises(ValueError, match="all of its 2 rows were skipped"):
        MediaCollator()([None, None])


def test_nothing_to_read_is_an_error(processor, tmp_path, monkeypatch) -> None:
    gone = [str(tmp_path / f"{index}.mp4") for index in range(300)]
    with pytest.raises(MediaError, match=r"none of 3 examples.*\.mp4"):
        MediaDataset(gone[:3], processor, on_error="skip")[1]
    with pytest.raises(MediaError, match="none of 3 examples"):
        next(iter(MediaIterableDataset(gone[:3], processor, on_error="skip")))
    tried = []
    monkeypatch.setattr(MediaReader, "read", lambda self, example: tried.append(example))
    report = MediaReport(tmp_path / "bad.jsonl")
    report.add(gone[0], OSError("no such file"))
    for kind in (MediaDataset, MediaIterableDataset):
        tried.clear()
        with pytest.raises(MediaError, match=r"none of 10[01] examples"):
            next(iter(kind(gone, processor, on_error="skip", report=report)))
        assert len(tried) <= 101, "a folder that is missing is not searched to its end"


def test_missing_sound_is_padded_with_mask_zero(processor, folder) -> None:
    heard = MediaDataset([folder / "one.mp4"], processor, num_chunks=2)[0]
    unheard = MediaDataset([folder / "two.mp4"], processor, num_chunks=4, load_audio_from_video=False)[0]
    assert "input_features" not in unheard
    batch = collate_clips([heard, unheard])
    assert batch["audio_mask"].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert batch["input_features"].shape[:2] == (2, 4)
    assert not batch["input_features"][1].any()


def test_part_of_a_file_is_read_and_reported(processor, folder, tmp_path) -> None:
    cut = tmp_path / "cut.mkv"
    _remux(folder / "two.mp4", cut)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    report = MediaReport(tmp_path / "bad.jsonl")
    data = MediaDataset([cut], processor, report=report, num_chunks=2)
    with pytest.warns(UserWarning, match="unrelated") as seen:
        import warnings

        warnings.warn("unrelated", UserWarning, stacklevel=1)
        assert data[0]["video_mask"].tolist() == [1, 1]
    assert not any(issubclass(warning.category, MediaWarning) for warning in seen)
    (entry,) = report.entries()
    assert entry.partial and entry.file == str(cut)
    assert len(report) == 0
    assert report.summary() == "0 files could not be read, 1 only in part"
    assert json.loads(report.path.read_text())["kind"] == "MediaWarning"


def _remux(source, target):
    import av

    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                out.mux(packet)


def test_examples_of_many_forms(processor, folder) -> None:
    path = folder / "one.mp4"
    forms = [path, str(path), path.read_bytes(), {"video": path}, {"path": str(path), "bytes": None}]
    forms += [{"video": {"path": None, "bytes": path.read_bytes()}, "start": None}]
    data = MediaDataset(forms, processor, **OPTIONS)
    rows = [data[i] for i in range(len(data))]
    _same(rows[1:], rows[:1] * 5)
    part = MediaDataset([{"video": path, "start": 1.0, "end": 2.0}], processor, **OPTIONS)[0]
    assert part["chunk_seconds"][0, 0] == 1.0 and part["chunk_seconds"][-1, 1] == 2.0
    sound = MediaDataset([{"audio": path}], processor, num_chunks=3)[0]
    assert set(sound) == {"input_features", "audio_mask"}
    assert torch.equal(sound["input_features"], rows[0]["input_features"])


def test_faults_of_the_caller_are_raised_not_skipped(processor, folder) -> None:
    with pytest.raises(ValueError, match="'ignore'"):
        MediaReader(processor, on_error="ignore")
    with pytest.raises(TypeError, match="start"):
        MediaReader(processor, start=1.0)
    with pytest.raises(ValueError, match="'video' or 'audio'"):
        MediaDataset([{"question": "?"}], processor, on_error="skip")[0]
    with pytest.raises(ValueError, match="not a multiple"):
        MediaDataset([folder / "one.mp4"], processor, on_error="skip", num_frames=3)[0]
    with pytest.raises(IndexError, match="clip 1 of 1"):
        MediaDataset([folder / "one.mp4"], processor)[1]


@pytest.mark.parametrize("processes", [None, 2])
def test_map_of_datasets_drops_bad_rows(processor, mixed, tmp_path, processes) -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"video": [str(path) for path in mixed], "answer": list("abcdef")})
    decode = MediaMap(processor, keep=["answer"], on_error="skip", num_chunks=2, report=MediaReport(tmp_path / "bad"))
    mapped = rows.map(
        decode, batched=True, batch_size=2, remove_columns=rows.column_names, num_proc=processes
    ).with_format("torch")
    assert mapped["answer"][:] == ["a", "c", "f"]
    assert len(decode.report) == 3
    alone = MediaDataset(mixed, processor, num_chunks=2)
    for row, index in zip(mapped, (0, 2, 5)):
        assert torch.equal(row["pixel_values_videos"], alone[index]["pixel_values_videos"])
        assert torch.equal(row["input_features"], alone[index]["input_features"])


def test_transform_of_datasets_decodes_what_is_asked_for(processor, folder) -> None:
    from datasets import Dataset, Video

    paths = [str(folder / "one.mp4"), str(folder / "gone.mp4")]
    rows = Dataset.from_dict({"clip": paths}).cast_column("clip", Video(decode=False))
    lazy = rows.with_transform(MediaMap(processor, column="clip", num_chunks=2))
    alone = MediaDataset(paths, processor, num_chunks=2)
    assert torch.equal(torch.as_tensor(lazy[0]["pixel_values_videos"]), alone[0]["pixel_values_videos"])
    with pytest.raises(FileNotFoundError, match="gone"):
        lazy[1]
