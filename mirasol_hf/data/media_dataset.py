"""Media files as data for `torch` loaders and for 🤗 `datasets`, decoded where the worker is.

A file is opened, read and closed inside one `__getitem__`: nothing that is open is ever handed to another process, so
workers may be forked or spawned. The tensors of a file depend on the file and the request alone.

Legend: B clips, K chunks, F frames per chunk, C, H, W image, S steps per chunk, M mel bins.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from mirasol_hf.processing.media_limits_mirasol import MediaError, MediaLimits, MediaWarning
from mirasol_hf.processing.processing_mirasol import MirasolProcessor
from mirasol_hf.processing.video_processing_mirasol import pad_chunks

from .media_report import MediaReport

# What belongs to one file; anything else is a fault of the caller and is raised whatever `on_error` says.
FILE_ERRORS = (MediaError, OSError)
_MEDIA_COLUMNS = ("video", "audio", "start", "end")
_MEDIA_AND_MASK = (("pixel_values_videos", "video_mask"), ("input_features", "audio_mask"))
_SECONDS = ("video_timestamps", "chunk_seconds")
# Unreadable examples in succession, after which the folder is more likely to be missing than the files to be bad.
_PATIENCE = 100
_OF_CHUNKS = (*(name for pair in _MEDIA_AND_MASK for name in pair), *_SECONDS)

Row = dict[str, Any]


class MediaReader:
    """Turns one example into the tensors of its clip.

    Args:
        processor: samples, resizes and analyses.
        on_error: `"raise"`, or `"skip"`, which goes on without a file that cannot be read.
        report: takes note of bad files; None makes one in a temporary file, which all workers share.
        limits: what one file may cost; None are the defaults, with the cores divided among the workers of a loader.
        options: passed on to the processor: `num_frames`, `fps`, `num_chunks`, `return_timestamps`, `size` …

    Raises:
        ValueError: if `on_error` is neither of the two.
        TypeError: if the options hold what the reader sets itself.
    """

    def __init__(
        self,
        processor: MirasolProcessor,
        on_error: str = "raise",
        report: MediaReport | None = None,
        limits: MediaLimits | None = None,
        **options: Any,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        taken = {"text", "videos", "audio", "context", "start", "end", "return_tensors"} & set(options)
        if taken:
            raise TypeError(f"{', '.join(sorted(taken))}: taken from each example or set by the reader")
        self.processor = processor
        self.on_error = on_error
        self.report = report if report is not None else MediaReport()
        self.limits = limits
        self.options = options

    def read(self, example: Any) -> Row | None:
        """The tensors of one clip, and the example's other columns as they are.

        Args:
            example: a media source (path, bytes or binary file object), or a mapping with `video` or `audio` or both,
                and perhaps `start` and `end` in seconds. `{"path", "bytes"}`, as `datasets.Video(decode=False)` gives
                it, counts as a source.

        Returns:
            `pixel_values_videos` `[K, F, C, H, W]` and `video_mask` `[K]`, `input_features` `[K, S, M]` and
            `audio_mask` `[K]`, as far as the clip has them; None for a bad file that is skipped.

        Raises:
            MediaError, OSError: for a bad file with `on_error="raise"`, naming it.
            ValueError: if the example holds no source.
        """
        example = example if isinstance(example, Mapping) and not _is_source_row(example) else {"video": example}
        video, audio = _source(example.get("video")), _source(example.get("audio"))
        if video is None and audio is None:
            raise ValueError(f"an example needs 'video' or 'audio', got {sorted(example)}")
        request = {key: example[key] for key in ("start", "end") if example.get(key) is not None}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MediaWarning)
            try:
                found = self.processor(
                    videos=[video] if video is not None else None,
                    audio=[audio] if audio is not None else None,
                    limits=self._limits(),
                    return_tensors="pt",
                    **request,
                    **self.options,
                )
            except FILE_ERRORS as error:
                self.report.add(_label(video if video is not None else audio), error)
                if self.on_error == "raise":
                    raise
                return None
        self._pass_on(caught, _label(video if video is not None else audio))
        rest = {key: value for key, value in example.items() if key not in _MEDIA_COLUMNS}
        return {**{name: tensor[0] for name, tensor in found.items()}, **rest}

    def _pass_on(self, caught: list[warnings.WarningMessage], label: str) -> None:
        for warning in caught:
            if isinstance(warning.message, MediaWarning):
                self.report.add(label, warning.message)
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def _limits(self) -> MediaLimits | None:
        worker = get_worker_info()
        if self.limits is not None or worker is None:
            return self.limits
        share = max(1, (os.cpu_count() or 1) // worker.num_workers)
        return MediaLimits(max_threads=min(MediaLimits().max_threads, share))


class MediaDataset(Dataset[Row]):
    """Clips by number.

    With `on_error="skip"` another example takes the place of one that cannot be read, drawn by the place's number:
    the same in every worker, process and epoch. No batch is ever empty, or smaller than those of other processes.

    Args:
        examples: what `MediaReader.read` takes, one per clip: a list of paths, a list of mappings, a
            `datasets.Dataset` …
        processor: samples, resizes and analyses.
        reader: `on_error`, `report`, `limits` and options of [`MediaReader`].

    Attributes:
        report: the bad files that any worker has met.
    """

    def __init__(self, examples: Sequence[Any], processor: MirasolProcessor, **reader: Any) -> None:
        self.examples = examples
        self.reader = MediaReader(processor, **reader)
        self.report = self.reader.report

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Row:
        """The clip of a number, or with `on_error="skip"` that of another where it cannot be read.

        Raises:
            MediaError, OSError: for a bad file with `on_error="raise"`, naming it.
            MediaError: with `on_error="skip"`, if none of many examples can be read.
            IndexError: there is no such number.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        index %= len(self)
        row = self.reader.read(self.examples[index])
        if row is not None:
            return row
        others = random.Random(index).sample(range(len(self)), min(len(self), _PATIENCE))
        for other in others:
            row = self.reader.read(self.examples[other]) if other != index else None
            if row is not None:
                return row
        raise MediaError(_nothing_readable(len({index, *others}), self.report))


class MediaIterableDataset(IterableDataset[Row]):
    """Clips one after the other, of any length, without those that are skipped.

    The workers of a loader share the examples out: each takes every n-th. A source that is itself a torch
    `IterableDataset` (as a streamed `datasets.IterableDataset` is) shares itself out and is left to do so.

    Args:
        examples: gives what `MediaReader.read` takes; iterated anew in every worker and epoch.
        processor: samples, resizes and analyses.
        reader: `on_error`, `report`, `limits` and options of [`MediaReader`].

    Attributes:
        report: the bad files that any worker has met.

    Raises (while it is iterated):
        MediaError, OSError: for a bad file with `on_error="raise"`, naming it.
        MediaError: with `on_error="skip"`, if none of many examples in succession can be read, or none of all.
    """

    def __init__(self, examples: Iterable[Any], processor: MirasolProcessor, **reader: Any) -> None:
        self.examples = examples
        self.reader = MediaReader(processor, **reader)
        self.report = self.reader.report

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        shared = worker is None or isinstance(self.examples, IterableDataset)
        count, own = (1, 0) if shared or worker is None else (worker.num_workers, worker.id)
        tried = failed = 0
        for index, example in enumerate(self.examples):
            if index % count != own:
                continue
            row = self.reader.read(example)
            tried += 1
            failed = failed + 1 if row is None else 0
            if failed == _PATIENCE:
                raise MediaError(_nothing_readable(failed, self.report))
            if row is not None:
                yield row
        # A worker whose share is bad has others beside it; alone, it would let a training end that never began.
        if (worker is None or worker.num_workers == 1) and 0 < tried == failed:
            raise MediaError(_nothing_readable(failed, self.report))


class MediaMap:
    """Decodes a batch of columns, for `datasets`' `map(..., batched=True)` and `with_transform`.

    With `map`, the rows of skipped files disappear (give `remove_columns` the columns that were there). With
    `with_transform` the number of rows cannot change, so bad files must raise.

    Args:
        processor: samples, resizes and analyses.
        column: name of the column with the video; `audio`, `start` and `end` are taken too where they exist.
        keep: names of the columns that stay.
        reader: `on_error`, `report`, `limits` and options of [`MediaReader`]. Give `report` a path of its own where
            `map` is to find its cached result again: a temporary one is new each time.

    Attributes:
        report: the bad files that any process has met.
    """

    def __init__(
        self, processor: MirasolProcessor, column: str = "video", keep: Sequence[str] = (), **reader: Any
    ) -> None:
        self.column = column
        self.keep = tuple(keep)
        self.reader = MediaReader(processor, **reader)
        self.report = self.reader.report

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Columns of tensors as NumPy arrays, one per clip, and the columns to keep; None for what a clip lacks.

        Raises:
            KeyError: if a column is missing.
        """
        names = {self.column: "video", **{name: name for name in ("audio", "start", "end") if name in batch}}
        rows = []
        for i in range(len(batch[self.column])):
            example = {name: batch[column][i] for column, name in names.items()}
            row = self.reader.read({**example, **{name: batch[name][i] for name in self.keep}})
            if row is not None:
                rows.append(row)
        # Every batch has the same columns, even one without a row: Arrow files have one schema.
        columns = [name for pair in _MEDIA_AND_MASK for name in pair]
        if self.reader.options.get("return_timestamps"):
            columns += _SECONDS
        return {name: [_as_array(row.get(name)) for row in rows] for name in (*columns, *self.keep)}


class MediaCollator:
    """Makes a batch of rows, without those that are None, as a `MediaReader` that skips gives them.

    Args:
        collate: gets the rows that are left, for instance a `MirasolDataCollator`; by default the media of all clips
            are padded to the longest with chunks of mask 0, and other columns become lists.

    Raises (by a call):
        ValueError: every row is None.
    """

    def __init__(self, collate: Callable[[list[Row]], dict[str, Any]] | None = None) -> None:
        self.collate = collate if collate is not None else collate_clips

    def __call__(self, rows: Sequence[Row | None]) -> dict[str, Any]:
        left = [row for row in rows if row is not None]
        if not left:
            raise ValueError(
                f"nothing is left of a batch: all of its {len(rows)} rows were skipped. MediaDataset puts another "
                "example in the place of one that cannot be read"
            )
        return self.collate(left)


def collate_clips(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as a batch: tensors of chunks `[B, K, ...]` padded at the end, other columns as lists.

    Args:
        rows: at least one, as `MediaReader.read` gives them.

    Raises:
        ValueError: if the clips' tensors differ in more than their number of chunks.
    """
    batch: dict[str, Any] = {}
    for media, mask in _MEDIA_AND_MASK:
        like = next((row[media] for row in rows if media in row), None)
        if like is None:
            continue
        filled = [row[media] if media in row else like.new_zeros(_chunks(row), *like.shape[1:]) for row in rows]
        batch[media] = pad_chunks(filled)
        batch[mask] = pad_chunks([row.get(mask, torch.zeros(_chunks(row), dtype=torch.int64)) for row in rows])
    for name in dict.fromkeys(name for row in rows for name in row):
        if name in _SECONDS:
            batch[name] = pad_chunks([row[name] for row in rows])
        elif name not in _OF_CHUNKS:
            batch[name] = [row.get(name) for row in rows]
    return batch


def _nothing_readable(count: int, report: MediaReport) -> str:
    """What is wrong where one example after the other fails: mostly a folder that is not there."""
    last = report.entries()[-1].message
    return f"none of {count} examples in succession could be read; the last: {last}. All of them: {report.path}"


def _chunks(row: Row) -> int:
    return next(len(row[name]) for name in _OF_CHUNKS if name in row)


def _is_source_row(example: Mapping[str, Any]) -> bool:
    return set(example) == {"path", "bytes"}


def _source(value: Any) -> Any:
    """A media source out of what a column holds."""
    if isinstance(value, Mapping) and _is_source_row(value):
        return value["bytes"] if value["bytes"] is not None else value["path"]
    return value


def _label(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return f"<{len(source)} bytes>" if isinstance(source, (bytes, bytearray)) else f"<{type(source).__name__}>"


def _as_array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
