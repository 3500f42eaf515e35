"""From files, arrays and text to the tensors of the model.

Legend: B batch, K chunks, F frames per chunk, C, H, W image, S steps per chunk, M mel bins, L text.
"""

import inspect
import os
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.video_processing_utils import VideoProcessorMixin

from .chunk_plan_mirasol import ChunkPlan
from .clips_mirasol import PICTURE_SECONDS, Clip, FramesClip, open_audio, open_video, pair_clips
from .fitting_parts_mirasol import check_tokenizer, fitting_parts
from .forked_mirasol import one_thread_after_fork
from .keywords_mirasol import LOADING_KEYWORDS, refuse_unknown, tokenizer_keywords
from .media_index_mirasol import Progress
from .media_limits_mirasol import MediaError, MediaLimits
from .media_mirasol import MediaFile
from .media_source_mirasol import MediaInput
from .media_traits_mirasol import media_traits
from .saved_options_mirasol import naming_file
from .saving_mirasol import save_whole
from .stream_chunks_mirasol import MediaChunks, iter_media_chunks
from .video_processing_mirasol import MirasolVideoProcessorKwargs, frame_rates, pad_chunks

_UNLIMITED = 1_000_000_000


class MirasolProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Keyword arguments of a [`MirasolProcessor`] call that Transformers sorts by modality.

    Attributes:
        videos_kwargs: those of [`MirasolVideoProcessor`].
        load_audio_from_video: whether the sound of a video file is read too (default: the processor's `reads_sound`).
    """

    videos_kwargs: MirasolVideoProcessorKwargs
    load_audio_from_video: bool


@dataclass
class _Request:
    """What a call asks for, the same for every clip unless a list says otherwise."""

    video_options: dict[str, Any]
    rates: list[float | None]
    start: list[Any]
    end: list[Any]
    timestamps: Any
    sampling_rate: int
    own_sound: bool
    limits: MediaLimits | None
    progress: Progress | None

    @property
    def channels_first(self) -> bool | None:
        """Where arrays have their channels, if the caller says so."""
        given = self.video_options.get("input_data_format")
        name = str(getattr(given, "value", given))
        return {"channels_first": True, "channels_last": False}.get(name)


@dataclass
class _Row:
    """The tensors of one clip; None where the modality is missing."""

    plan: ChunkPlan
    pixels: torch.Tensor | None
    video_mask: torch.Tensor
    video_times: torch.Tensor
    features: torch.Tensor | None
    audio_mask: torch.Tensor


class MirasolProcessor(ProcessorMixin):
    """Text, video and sound in, model inputs out.

    Args:
        video_processor: [`MirasolVideoProcessor`].
        feature_extractor: [`MirasolFeatureExtractor`].
        tokenizer: any tokenizer of the library.
        chat_template: optional Jinja template.
        prompt_template: how question and context become the prompt; the answer follows it directly.
        reads_sound: whether the sound of video files is read where `load_audio_from_video` does not say it.

    Example:

        processor = MirasolProcessor.for_config(model.config, tokenizer)
        inputs = processor(text="what is shown?", videos="clip.mp4", return_tensors="pt")
        answer = model.generate(**inputs)
    """

    valid_processor_kwargs = MirasolProcessorKwargs
    text_kwargs = {"padding": True, "padding_side": "left", "return_token_type_ids": False}

    def __init__(
        self,
        video_processor: Any = None,
        feature_extractor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        prompt_template: str = "{context} {question}\n",
        reads_sound: bool = True,
    ) -> None:
        parts = {"video_processor": video_processor, "feature_extractor": feature_extractor, "tokenizer": tokenizer}
        missing = [name for name, part in parts.items() if part is None]
        if missing:
            raise TypeError(
                f"MirasolProcessor lacks {', '.join(missing)}; expected MirasolProcessor.for_config(model.config, "
                f"tokenizer), which makes what fits a model, or MirasolProcessor.from_pretrained(folder)"
            )
        if "{question}" not in prompt_template:
            raise ValueError(f"prompt_template must contain {{question}}, got {prompt_template!r}")
        self.prompt_template = prompt_template
        self.reads_sound = reads_sound
        super().__init__(video_processor, feature_extractor, tokenizer, chat_template=chat_template)

    @property
    def load_audio_from_video(self) -> bool:
        """What the library takes for a call that does not say it."""
        return self.reads_sound

    @classmethod
    def for_config(cls, config: Any, tokenizer: Any, num_chunks: int = 16, **options: Any) -> "MirasolProcessor":
        """Makes the processor that fits a model.

        Args:
            config: the model's `MirasolConfig`. Without an audio tower in it, the sound of video files is not read.
            tokenizer: any tokenizer of the library with the config's vocabulary and special tokens.
            num_chunks: K when a call asks for none. The model takes any number; 16 are the paper's.
            options: those of the class, of [`MirasolVideoProcessor`] and of [`MirasolFeatureExtractor`], such as
                `prompt_template`, `image_mean` or `db_offset`.

        Raises:
            TypeError: for an unknown option.
            ValueError: if the tokenizer has other special tokens than the config, or more entries.

        Example:

            config = MirasolConfig.from_preset("base")
            tokenizer = train_tokenizer(texts, vocab_size=config.text_config.vocab_size)
            processor = MirasolProcessor.for_config(config, tokenizer)
        """
        check_tokenizer(tokenizer, config.text_config)
        own = {name: options.pop(name) for name in inspect.signature(cls).parameters if name in options}
        pictures, sound = fitting_parts(config, {"num_chunks": num_chunks, **options})
        return cls(pictures, sound, tokenizer, **{"reads_sound": config.audio_config is not None, **own})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a saved processor; see the library's method for the arguments.

        Options of the parts are handed to them: `from_pretrained(folder, num_chunks=16, padding_side="right")`.

        Raises:
            TypeError: for a keyword that no part knows.
            ValueError: a file is damaged, or an option in it is wrong.
        """
        needed = () if kwargs.get("subfolder") else ("processor_config.json", "tokenizer.json")
        with naming_file(pretrained_model_name_or_path, kwargs, needed=needed):
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        # a pipeline hands over the model's options too, and with `return_unused_kwargs` the caller looks himself
        if not kwargs.get("_from_pipeline") and not kwargs.get("return_unused_kwargs"):
            pictures, sound = (
                loaded.video_processor.valid_kwargs.__annotations__,
                loaded.feature_extractor.option_names(),
            )
            own = inspect.signature(cls).parameters
            known = {*LOADING_KEYWORDS, *own, *pictures, *sound, *tokenizer_keywords(type(loaded.tokenizer))}
            refuse_unknown("MirasolProcessor", kwargs, known - {"kwargs"})
        return loaded

    # no mixin: the library takes the first base class for its own, to see which of its methods a processor overrides
    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str] | None:
        """Saves as the library does, but nothing half-written; see `save_whole` for what is raised."""
        return save_whole(super().save_pretrained, save_directory, push_to_hub, **kwargs)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Check a part's class; the library's own check of video processors needs torchvision."""
        if argument_name == "video_processor" and isinstance(argument, VideoProcessorMixin):
            return VideoProcessorMixin
        return super().check_argument_for_proper_class(argument_name, argument)

    @property
    def model_input_names(self) -> list[str]:
        """Names of what the model takes."""
        return [name for name in super().model_input_names if name != "token_type_ids"]

    def build_prompt(self, question: str, context: str | None = None) -> str:
        """The prompt of a question; the answer follows it directly.

        Args:
            question: what is asked.
            context: what the reader is told beforehand (title, description); None leaves it and its space out.

        Raises:
            ValueError: if the question is not text, or empty, or question or context is no valid Unicode.
        """
        if not isinstance(question, str):
            raise ValueError(f"text must be a question as a string, got {type(question).__name__}")
        if not question.strip():
            raise ValueError("text is an empty question")
        _valid_unicode("the question", question)
        _valid_unicode("the context", context or "")
        if context is None or not context.strip():
            template = self.prompt_template.replace("{context} ", "").replace("{context}", "")
            return template.replace("{question}", question.strip())
        # The question is put in last so that braces in the context stay text.
        before, _, after = self.prompt_template.partition("{question}")
        parts = [part.replace("{context}", context.strip()) for part in (before, after)]
        return question.strip().join(parts)

    def __call__(
        self,
        text: str | list[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        *,
        context: str | list[str | None] | None = None,
        timestamps: Any = None,
        start: float | list[float] | None = None,
        end: float | list[float] | None = None,
        return_timestamps: bool | None = None,
        limits: MediaLimits | None = None,
        progress: Progress | None = None,
        **kwargs: Unpack[MirasolProcessorKwargs],
    ) -> BatchFeature:
        """Prepare a batch.

        Args:
            text: question or list of questions. A text that already ends its question as the prompt template does (by
                default: contains a line break) is a finished prompt and is left as it is.
            videos: clip or list of clips, each a path, bytes, binary file object, array or tensor `[frames, ...]` with
                `fps` or `timestamps`, list of pictures (one second each unless `fps` or `timestamps` says otherwise),
                one PIL image, or None (a text without a clip gets mask 0). The sound of a file comes with it.
            audio: instead of the file's own sound: path, bytes, file object or mono waveform with `sampling_rate`; or
                a list of these, one per clip.
            context: text the reader is told before the question, one for all or one per question.
            timestamps: seconds of each frame of an array, or a list of such lists.
            start: first second that is used, default the start of the clip.
            end: second at which it ends, at most and by default the end of the clip.
            return_timestamps: add `video_timestamps` and `chunk_seconds`.
            limits: what one file may cost.
            progress: called with a growing fraction from 0 to 1 while the files are read.
            kwargs: `num_frames` (of the whole clip) or `fps`, and `num_chunks` or `chunk_seconds` (the last window may
                reach beyond the end); `sampling_rate` of waveforms;
                `load_audio_from_video`; `return_tensors`; those of the tokenizer and the video processor. For frames
                in memory, `fps` is the rate they were taken at, unless `video_metadata` (one entry for each clip)
                says that; with `do_sample_frames=False` all of them are used and need no rate.

        Returns:
            With text `input_ids`, `attention_mask` `[B, L]`; if any clip has pictures `pixel_values_videos` float32
            `[B, K, F, C, H, W]` and `video_mask` int64 `[B, K]`; if any has sound `input_features` float32
            `[B, K, S, M]` and `audio_mask` int64 `[B, K]`. Short clips are padded with chunks of mask 0 at the end. On
            request `video_timestamps` float64 `[B, K, F]`, when each picture is presented (in chunks without one: when
            it was wanted), and `chunk_seconds` float64 `[B, K, 2]`, in seconds from the start of the clip's earliest
            stream.

        Raises:
            ValueError: if an argument has the wrong form, or a file cannot be read; naming it.
            TypeError: for an unknown keyword.
            OSError: if a file cannot be opened.

        Warns:
            MediaWarning: if only a part of a file can be read.
        """
        one_thread_after_fork()
        merged = self._sorted_keywords(kwargs)
        if text is None and videos is None and audio is None:
            raise ValueError("give at least one of text, videos and audio")
        data: dict[str, Any] = {}
        if text is not None:
            data.update(self._encode_text(text, context, merged["text_kwargs"]))
        pairs = pair_clips(videos, audio, text is not None) if videos is not None or audio is not None else []
        if pairs:
            request = _Request(
                merged["videos_kwargs"],
                rates=frame_rates(merged["videos_kwargs"].get("video_metadata"), len(pairs)),
                start=_per_clip(start, len(pairs), "start"),
                end=_per_clip(end, len(pairs), "end"),
                timestamps=[timestamps] if len(pairs) == 1 and _is_flat(timestamps) else timestamps,
                sampling_rate=self._sampling_rate(pairs, merged["audio_kwargs"]),
                own_sound=bool(merged["load_audio_from_video"]),
                limits=limits,
                progress=progress,
            )
            if text is not None and len(data["input_ids"]) != len(pairs):
                raise ValueError(
                    f"text has {len(data['input_ids'])} entries for {len(pairs)} clips; give one per clip"
                )
            data.update(self._collate(self._read_clips(pairs, request), bool(return_timestamps)))
        kinds = [merged[group].get("return_tensors") for group in ("text_kwargs", "videos_kwargs", "audio_kwargs")]
        return BatchFeature(data, tensor_type=next((kind for kind in kinds if kind is not None), None))

    def iter_chunks(
        self,
        source: MediaInput,
        *,
        chunk_seconds: float = 1.0,
        start: float = 0.0,
        end: float | None = None,
        load_audio_from_video: bool | None = None,
        return_timestamps: bool = False,
        limits: MediaLimits | None = None,
    ) -> MediaChunks:
        """Prepare one chunk after the other while the media are still coming.

        The source is read once, from front to back, and no further than the present chunk needs: a slow consumer
        holds the writer of a pipe back. Memory does not grow with the length. For the same windows the values are
        those of a call with the whole file.

        Args:
            source: path, bytes or binary file object; one that cannot seek (a pipe) is read as it comes.
            chunk_seconds: duration of each window; the last may reach beyond the end of the media.
            start: first second that is used. What lies before it is read, but decoded only from the last key frame on.
            end: second at which it ends at most; the last window is cut there.
            load_audio_from_video: whether the sound is read too, by default as in a call.
            return_timestamps: add `video_timestamps` float64 `[1, 1, F]`.
            limits: what the stream may cost.

        Yields:
            Tensors of one chunk: where the source has pictures `pixel_values_videos` float32 `[1, 1, F, C, H, W]` and
            `video_mask` int64 `[1, 1]`, where it has sound `input_features` float32 `[1, 1, S, M]` and `audio_mask`
            int64 `[1, 1]`; and `chunk_seconds` float64 `[1, 1, 2]`, counted from the start of the earliest stream. The
            iterator's `seconds` says how much has come: as `chunk_seconds`, but no further than the end of the media.

        Raises:
            ValueError: if an argument is out of range, or the source cannot be read; naming it.
            OSError: if the source cannot be opened.

        Warns:
            MediaWarning: at the end, if only a part could be read, as of a stream that was cut off.
        """
        one_thread_after_fork()
        own_sound = self.load_audio_from_video if load_audio_from_video is None else load_audio_from_video
        return iter_media_chunks(
            source,
            self.video_processor,
            self.feature_extractor,
            chunk_seconds=chunk_seconds,
            start=start,
            end=end,
            load_audio_from_video=own_sound,
            return_timestamps=return_timestamps,
            limits=limits,
        )

    def _multimodal_inputs_from_conversations(
        self, conversations: list[Any], audio_loading_params: dict[str, Any], load_audio_from_video: bool = False
    ) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
        """Media of chat messages, for `apply_chat_template`: files as they are, which this processor reads itself.

        The library would decode sound files here, for which it needs packages beside PyAV.
        """
        rows: dict[str, list[Any]] = {"image": [], "video": [], "audio": []}
        for conversation in conversations:
            blocks = [
                block
                for message in conversation
                if not isinstance(message.get("content") or "", str)
                for block in message["content"]
            ]
            for kind, row in rows.items():
                found = [block for block in blocks if block["type"] == kind]
                row.append([block[key] for block in found for key in (kind, "url", "path") if key in block])
        sounds = rows["audio"] if any(rows["audio"]) else []
        more = {"load_audio_from_video": True} if load_audio_from_video else {}
        return rows["image"], rows["video"], sounds, more

    def media_traits(self, inputs: Any) -> dict[str, float]:
        """A few numbers that tell what kind of media a clip holds, by name; see `media_traits_mirasol`.

        Args:
            inputs: what a call or `iter_chunks` made of one clip.
        """
        return media_traits(inputs, self.video_processor.image_mean, self.video_processor.image_std)

    @classmethod
    def call_keywords(cls) -> set[str]:
        """Names of all that a call takes."""
        named = set(inspect.signature(cls.__call__).parameters) - {"self", "kwargs"}
        known = set(MirasolProcessorKwargs.__annotations__) | {"common_kwargs"}
        for modality in ("text_kwargs", "videos_kwargs", "audio_kwargs"):
            known |= set(MirasolProcessorKwargs.__annotations__[modality].__annotations__)
        return named | known

    def _sorted_keywords(self, kwargs: Any) -> dict[str, Any]:
        """Keywords by the part they belong to, completed with defaults."""
        if kwargs.pop("images", None) is not None:  # the library's chat templates hand it over, mostly as None
            raise TypeError("MirasolProcessor takes no images; a still picture is a clip: videos=[picture]")
        refuse_unknown("MirasolProcessor", kwargs, self.call_keywords())
        try:
            merged: dict[str, Any] = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        except StrictDataclassError as error:
            raise ValueError(f"a keyword of MirasolProcessor has the wrong type: {error}") from error
        return merged

    def _encode_text(self, text: Any, context: Any, options: dict[str, Any]) -> dict[str, Any]:
        texts = [text] if isinstance(text, str) else list(text) if isinstance(text, (list, tuple)) else [text]
        if not texts:
            raise ValueError("text is an empty list")
        contexts = _per_clip(context, len(texts), "context")
        tail = self.prompt_template.partition("{question}")[2]
        prompts = []
        for question, told in zip(texts, contexts, strict=True):
            finished = isinstance(question, str) and bool(tail) and tail in question and bool(question.strip())
            if finished and told is not None:
                raise ValueError("text is a finished prompt already, so context cannot be added to it")
            prompts.append(_valid_unicode("the text", question) if finished else self.build_prompt(question, told))
        encoded = dict(self.tokenizer(prompts, **{"verbose": False, **options}))
        limit = self.tokenizer.model_max_length
        longest = max(len(ids) for ids in encoded["input_ids"])
        if limit < _UNLIMITED and longest > limit:
            raise ValueError(f"text gives {longest} tokens, but the model takes at most {limit}")
        return encoded

    def _sampling_rate(self, pairs: list[tuple[Any, Any]], options: dict[str, Any]) -> int:
        rate = options.get("sampling_rate")
        own = int(self.feature_extractor.sampling_rate)
        if rate is None and any(isinstance(sound, (list, tuple)) or hasattr(sound, "ndim") for _, sound in pairs):
            warnings.warn(f"audio comes without sampling_rate=; {own} samples per second are assumed", stacklevel=3)
        return own if rate is None else int(rate)

    def _read_clips(self, pairs: list[tuple[Any, Any]], request: _Request) -> list[_Row]:
        count = len(pairs)
        stamps = _per_clip(request.timestamps, count, "timestamps")
        rows: list[_Row | None] = []
        for i, (video, sound) in enumerate(pairs):
            if video is None and sound is None:
                rows.append(None)
                continue
            suffix = "" if count == 1 else f"[{i}]"
            with ExitStack() as stack:
                pictures: Clip | None = None
                heard: Clip | None = None
                if video is not None:
                    pictures = open_video(
                        video,
                        f"videos{suffix}",
                        fps=self._own_rate(request, i, stamps[i]),
                        timestamps=stamps[i],
                        channels_first=request.channels_first,
                        limits=request.limits,
                        progress=_scaled_progress(request.progress, i, count),
                    )
                    _close_later(stack, pictures)
                if sound is not None:
                    rate = request.sampling_rate
                    heard = open_audio(sound, f"audio{suffix}", rate=rate, limits=request.limits, progress=None)
                    _close_later(stack, heard)
                elif pictures is not None and pictures.has_audio and request.own_sound:
                    heard = pictures
                rows.append(self._read_row(pictures, heard, request, i))
        if request.progress is not None:
            request.progress(1.0)
        return _with_empty_rows(rows)

    def _own_rate(self, request: _Request, i: int, timestamps: Any) -> float | None:
        """Frames per second of a clip in memory, as far as it is told; frames that are not sampled need none."""
        rate = request.rates[i] or request.video_options.get("fps")
        sampled = request.video_options.get("do_sample_frames")
        sampled = self.video_processor.do_sample_frames if sampled is None else sampled
        return 1.0 / PICTURE_SECONDS if rate is None and timestamps is None and not sampled else rate

    def _read_row(self, pictures: Clip | None, heard: Clip | None, request: _Request, i: int) -> _Row:
        plan = self._plan(pictures, heard, request, i)
        nothing = torch.zeros(plan.num_chunks, dtype=torch.int64)
        row = _Row(plan, None, nothing, torch.from_numpy(plan.frame_times), None, nothing)
        if pictures is not None and pictures.has_video:
            read = self.video_processor.read_chunks(pictures, plan, **request.video_options)
            if read is not None:
                row.pixels, row.video_mask, row.video_times = read[0], read[1], torch.from_numpy(read[2])
        if heard is not None:
            self._read_sound(heard, row)
        files = {id(clip): clip for clip in (pictures, heard) if isinstance(clip, MediaFile)}
        for media in files.values():
            if row.pixels is None and row.features is None:
                absent = "nothing to see" if heard is None else "nothing to see or hear"
                cause = "; ".join(media.problems) or f"{absent} in this span"
                raise MediaError(f"{media.label}: {cause}")
            media.warn()
        return row

    def _read_sound(self, heard: Any, row: _Row) -> None:
        extractor = self.feature_extractor
        parts = []
        for window, pieces in zip(row.plan.windows, heard.read_sound(row.plan, extractor.sampling_rate), strict=True):
            parts.append(extractor.extract_pieces(pieces, window))
        mask = torch.cat([mask for _, mask in parts])
        if bool(mask.any()):
            row.features, row.audio_mask = torch.cat([features for features, _ in parts]), mask

    def _plan(self, pictures: Clip | None, heard: Clip | None, request: _Request, i: int) -> ChunkPlan:
        first, last = _span(pictures, heard)
        begin, end = request.start[i], request.end[i]
        begin = first if begin is None else float(begin)
        end = last if end is None else min(float(end), last)
        if not min(first, 0.0) <= begin < last:
            raise ValueError(f"start={begin:g} s lies outside the clip, which lasts from {first:g} s to {last:g} s")
        if not end > begin:
            raise ValueError(f"end={end:g} s must lie after start={begin:g} s")
        asked = request.video_options
        fps = asked.get("fps") if request.rates[i] or not isinstance(pictures, FramesClip) else None
        plan: ChunkPlan = self.video_processor.plan(pictures, begin, end, asked, fps)
        return plan

    def _collate(self, rows: list[_Row], return_timestamps: bool) -> dict[str, torch.Tensor]:
        data: dict[str, torch.Tensor] = {}
        chunks = [row.plan.num_chunks for row in rows]
        pixels = _stacked([row.pixels for row in rows], chunks)
        if pixels is not None:
            data["pixel_values_videos"] = pixels
            data["video_mask"] = pad_chunks([row.video_mask for row in rows])
        features = _stacked([row.features for row in rows], chunks)
        if features is not None:
            data["input_features"] = features
            data["audio_mask"] = pad_chunks([row.audio_mask for row in rows])
        if return_timestamps:
            data["video_timestamps"] = pad_chunks([row.video_times for row in rows])
            data["chunk_seconds"] = pad_chunks([torch.from_numpy(row.plan.windows) for row in rows])
        return data


def _with_empty_rows(rows: list[_Row | None]) -> list[_Row]:
    """Rows of no chunks where a text has no clip (None); at least one has."""
    frames = next(row.plan.frames_per_chunk for row in rows if row is not None)
    plan, mask = ChunkPlan(np.zeros((0, 2)), np.zeros((0, frames))), torch.zeros(0, dtype=torch.int64)
    empty = _Row(plan, None, mask, torch.from_numpy(plan.frame_times), None, mask)
    return [empty if row is None else row for row in rows]


def _valid_unicode(name: str, text: str) -> str:
    """The text; refuses what no tokenizer takes, such as bytes of a command line that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"its character {error.start + 1} is the surrogate {error.object[error.start]!r}"
        raise ValueError(f"{name} is no valid Unicode: {problem}") from None
    return text


def _span(pictures: Clip | None, heard: Clip | None) -> tuple[float, float]:
    """First and last second of a clip made of these."""
    ends = [clip.duration for clip in (pictures, heard) if clip is not None]
    if isinstance(pictures, MediaFile) and heard is not None and heard is not pictures and pictures.has_video:
        # The file's own sound is replaced, so only its pictures count.
        ends[0] = pictures.video_reader().end
    begins = [clip.begin for clip in (pictures, heard) if clip is not None]
    return min(begins), max(ends)


def _stacked(rows: list[torch.Tensor | None], chunks: list[int]) -> torch.Tensor | None:
    """Padded batch in which missing rows are zero; None if all are missing."""
    like = next((row for row in rows if row is not None), None)
    if like is None:
        return None
    filled = [
        row if row is not None else like.new_zeros(count, *like.shape[1:])
        for row, count in zip(rows, chunks, strict=True)
    ]
    return pad_chunks(filled)


def _per_clip(value: Any, count: int, name: str) -> list[Any]:
    """One value per clip from a single value or a list of the right length."""
    if not isinstance(value, (list, tuple)) and getattr(value, "ndim", 0) < 2:
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} clips")
    return list(value)


def _is_flat(values: Any) -> bool:
    """Whether these are the numbers of one clip, not lists of them."""
    return values is not None and (hasattr(values, "ndim") or not any(hasattr(v, "__len__") for v in values))


def _close_later(stack: ExitStack, clip: Clip) -> None:
    if isinstance(clip, MediaFile):
        stack.callback(clip.close)


def _scaled_progress(progress: Progress | None, i: int, count: int) -> Progress | None:
    """Progress of clip `i` of `count` as part of the whole."""
    if progress is None:
        return None

    def report(fraction: float) -> None:
        progress((i + fraction) / count)

    return report
