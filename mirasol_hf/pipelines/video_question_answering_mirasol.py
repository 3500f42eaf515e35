# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Free-text answers about videos with their sound, as a Transformers pipeline.

What is special: the media of an item are encoded once, however many questions are asked about it and however many
beams decode the answers. The file imports nothing of its package, so that it can travel as remote code.

Legend: N items of a batch, Q text rows (questions) of a batch, K chunks, m joint features per chunk, D width, L text.
"""

import difflib
import inspect
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import GenerationConfig, Pipeline
from transformers.pipelines.pt_utils import KeyDataset, PipelineDataset, PipelineIterator
from transformers.utils import logging

logger = logging.get_logger(__name__)

_MEDIA_TENSORS = ("pixel_values_videos", "video_mask", "input_features", "audio_mask")
_ENCODED_TENSORS = ("media_hidden_states", "media_attention_mask")
_Drawn: TypeAlias = tuple[str, float, tuple[int, ...]]  # a generated text, its probability, its tokens
_MOST_ANSWERS = 100
# Characters that one entry of a vocabulary stands for at most; the longest of common ones are runs of 128 blanks.
_LONGEST_TOKEN = 128
# What the processor and `generate` call otherwise than the pipeline.
_OTHER_NAMES = {"videos": "video", "text": "question", "num_return_sequences": "top_k"}
_ITEM_KEYS = ("video", "question", "context", "use_audio", "use_video")
# What a row of data may hold beside the question: nothing that the answer depends on.
_UNREAD_KEYS = ("id", "answer", "answers", "candidates", "type")


class VideoQuestionAnsweringPipeline(Pipeline):
    """Answers questions about a video, its sound, or both.

    Registered as `"video-question-answering"`. Greedy by default, with at most 16 new tokens where the model's
    generation config says nothing else.

    Example:
        >>> import mirasol_hf
        >>> from transformers import pipeline
        >>> pipe = pipeline("video-question-answering")
        >>> pipe("clip.mp4", "What colour is the square?")
        [{'answer': 'red', 'score': 0.97}]
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    _pipeline_calls_generate = True
    _default_generation_config = GenerationConfig(max_new_tokens=16)
    _non_generation_params = ("top_k",)  # here: the number of answers

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError("the video-question-answering pipeline needs processor=; none was given or found")
        check_geometry(self.processor, self.model.config)
        if self.processor.tokenizer.pad_token is None:
            name = self.processor.tokenizer.name_or_path or "the processor"
            raise ValueError(f"the tokenizer of {name} has no padding token; expected its pad_token to be set")
        text, generation = self.model.config.get_text_config(decoder=True), self.model.generation_config
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):  # which generation_config.json need not say
            if getattr(generation, name) is None:
                setattr(generation, name, getattr(text, name))

    def __call__(
        self,
        video: Any = None,
        question: str | list[Any] | None = None,
        context: str | list[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answers one question or many.

        Args:
            video: a path, bytes, a binary file object, an array or tensor of frames (with `fps=`), a list of PIL
                images, a file with sound alone, or `None` for a question about the context only. A list of videos, a
                column of a dataset, and frames of five dimensions are a batch. Instead of the three arguments: a dict
                with the keys `video`, `question`, `context` and, where needed, `audio` and any keyword of the
                processor; a list, a generator or a `Dataset` of them. A row of data may have `use_audio` and
                `use_video`, and `id`, `answer`, `answers`, `candidates` and `type`, which are not looked at; of a
                `Dataset` other columns are not looked at either.
            question: the question; a list with one video asks them all and encodes the video once; a list or column
                with a list of videos gives each video its own (which may be a list again).
            context: text that the question may refer to; one for all, or a list parallel to `question`.
            top_k (`int`, defaults to 1): how many different answers at most, best first; more than one uses beams. At
                most 100, since memory grows with it, and what comes after has a probability below 0.01.
            max_new_tokens, num_beams, do_sample, temperature …: any option of `generate` but `top_k`, which is here
                the number of answers; `generate_kwargs={"top_k": …}` is that of `generate`.
            generate_kwargs (`dict`): options of `generate` as a dict.
            return_unfamiliar (`bool`): also say beside each answer in what the clip is unlike those that the model was
                trained on: `"unfamiliar"`, a list of phrases, empty where nothing is known to be. It is logged anyway.
            batch_size (`int`), num_workers (`int`): for lists, generators and datasets.
            kwargs: `audio=`, `fps=`, `sampling_rate=`, `num_frames=`, `num_chunks=`, `start=`, `end=`: passed to the
                processor.

        Returns:
            A list of up to `top_k` dicts `{"answer": str, "score": float}`, best first; a list of such lists for
            several questions or a list of videos; an iterator for a generator or a `Dataset`. The score is the
            model's probability of the whole answer, its end token included: the product over the answer's tokens.
            Answers spelt the same by different tokens are one answer, their probabilities added.

        Raises:
            ValueError: an empty question, lists of different length, a prompt longer than the decoder's positions,
                media the processor cannot read (it names the file), or a model whose probabilities are NaN.
            TypeError: a keyword that neither the pipeline nor the processor knows.
            OSError: a file that is missing or cannot be opened.
        """
        return super().__call__(_as_inputs(video, question, context, self._item_keys()), **kwargs)

    def answer_features(
        self,
        features: Mapping[str, torch.Tensor],
        question: str | list[str],
        context: str | list[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answers questions about media that `model.encode_media` has encoded before, for example chunk by chunk.

        Args:
            features: `media_hidden_states` [1, K·m, D] and `media_attention_mask` [1, K·m] of one video.
            question: the question, or a list of them.
            context: text that the question may refer to; one for all, or a list parallel to `question`.
            kwargs: `top_k`, `generate_kwargs` and options of `generate`, as in a call.

        Returns:
            As a call with one video.

        Raises:
            ValueError: see `__call__`.
            TypeError: a keyword that the pipeline does not know, or one about media, of which none are read here.
        """
        of_processor, options, of_answer = self._sanitize_parameters(**kwargs)
        for name in (*of_processor.get("processor_kwargs", ()), *of_answer):
            raise TypeError(f"answer_features does not know the keyword {name}: its media have been read before")
        item = self.preprocess({"video": None, "question": question, "context": context})
        batch = _collate([item])
        batch["media"] = {name: features[name] for name in _ENCODED_TENSORS}
        return self.postprocess(self.forward(batch, **{**self._forward_params, **options})["items"][0])

    def _sanitize_parameters(
        self,
        top_k: int | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        return_unfamiliar: bool = False,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward: dict[str, Any] = {}
        of_generate = self._generation_options()
        direct = {name: kwargs.pop(name) for name in of_generate & kwargs.keys()}
        twice = sorted(direct.keys() & (generate_kwargs or {}).keys())
        if twice:
            raise ValueError(f"{', '.join(twice)} is given twice: as an argument and in generate_kwargs")
        if direct or generate_kwargs is not None:
            forward["generate_kwargs"] = {**(generate_kwargs or {}), **direct}
        if top_k is not None:
            check_top_k(top_k)
            forward["top_k"] = top_k
        _refuse_unknown(kwargs, self._item_keys() | of_generate | {"generate_kwargs"})
        postprocess = {"return_unfamiliar": True} if return_unfamiliar else {}
        return ({"processor_kwargs": kwargs} if kwargs else {}), forward, postprocess

    def _generation_options(self) -> set[str]:
        """Names of what a call hands to `generate`."""
        of_config = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
        of_call = set(inspect.signature(self.model.generate).parameters) - {"inputs", "kwargs"}
        return (of_config | of_call) - {*self._non_generation_params, *_OTHER_NAMES}

    def _item_keys(self) -> set[str]:
        """Names of what an item may hold."""
        of_processor = set() if self.processor is None else self.processor.call_keywords()
        return (of_processor | set(_ITEM_KEYS)) - _OTHER_NAMES.keys()

    def preprocess(self, input_: Any, processor_kwargs: dict[str, Any] | None = None) -> dict[str, Any]:
        """Reads one item: its prompts, and its media as tensors with a leading dimension of one."""
        if not isinstance(input_, Mapping):
            raise ValueError(f"an item must be a dict with 'video' and 'question', got {type(input_).__name__}")
        call = {key: value for key, value in input_.items() if key not in _UNREAD_KEYS and value is not None}
        _refuse_unknown(call, self._item_keys())
        video, call = _media_of({**(processor_kwargs or {}), **call})
        questions, several = _questions_of(input_)
        contexts = _contexts_of(input_, len(questions))
        prompts = [self.processor.build_prompt(q, c) for q, c in zip(questions, contexts)]
        self._check_lengths(questions, prompts)
        media: dict[str, torch.Tensor] = {}
        unfamiliar: list[str] = []
        if video is not None or call.get("audio") is not None:
            inputs = self.processor(videos=video, return_tensors="pt", **call)
            media = {name: inputs[name] for name in _MEDIA_TENSORS if inputs.get(name) is not None}
            if self.model.config.media_ranges:
                unfamiliar = self.unfamiliar_traits(self.processor.media_traits(media))
            if unfamiliar:
                name = video if isinstance(video, (str, os.PathLike)) else "the clip"
                logger.warning_once(f"{name} is unlike the clips of the training: {', '.join(unfamiliar)}")
        return {"prompts": prompts, "several": several, "media": media, "unfamiliar": unfamiliar}

    def unfamiliar_traits(self, traits: Mapping[str, float]) -> list[str]:
        """Says in what a clip is unlike those that the model was trained on, as far as its configuration knows them.

        Args:
            traits: of the clip, as `processor.media_traits` gives them.
        """
        ranges = {} if _is_adapted(self.model) else self.model.config.media_ranges or {}
        found = [(name, value, *ranges[name]) for name, value in traits.items() if name in ranges]
        return [
            f"{name.replace('_', ' ')} {value:.2f} (in training {low:.2f} to {high:.2f})"
            for name, value, low, high in found
            if not low <= value <= high
        ]

    def trained_on(self) -> str | None:
        """A sentence about what the model was trained on; `None` where its configuration does not say."""
        data = self.model.config.trained_on
        if data is None:
            return None
        adapted = ", then adapted" if _is_adapted(self.model) else ""
        return f"the model was trained on {data}{adapted}; its answers about anything else mean little"

    def _check_lengths(self, questions: list[str], prompts: list[str]) -> None:
        """Raises ValueError for a prompt that leaves the answer no position; before any media are read."""
        positions = self.model.config.get_text_config(decoder=True).max_position_embeddings
        sizes = [(len(prompt), "characters") for prompt in prompts]
        most = positions * _LONGEST_TOKEN
        if max(sizes)[0] <= most:  # else nothing is tokenized: megabytes of text would take seconds and gigabytes
            sizes = [(len(tokens), "tokens") for tokens in self.processor.tokenizer(prompts)["input_ids"]]
            most = positions - 1
        for question, (size, unit) in zip(questions, sizes):
            if size > most:
                raise ValueError(
                    f"question {_shortened(question)} is too long: with its context it has {size} {unit}, but "
                    f"the decoder has {positions} positions and the answer needs some of them"
                )

    def _forward(
        self, batch: dict[str, Any], top_k: int = 1, generate_kwargs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        if self.trained_on() is not None:
            logger.warning_once(self.trained_on())
        given = {**self._generate_kwargs, **(generate_kwargs or {})}
        overrides = {"num_return_sequences": top_k, "return_dict_in_generate": True, "output_logits": True}
        options = self._prepare_generate_kwargs(generate_kwargs or {}, **overrides, **_beam_options(top_k, given))
        rows_of_item = [len(prompts) for prompts in batch["prompts"]]
        text = self._tokenize([prompt for prompts in batch["prompts"] for prompt in prompts])
        media = self._encode(batch["media"], rows_of_item)
        output = self.model.generate(**text, **media, **options)
        drawn = self._read(output, text["input_ids"].shape[1], self._end_tokens(options))
        groups = [_merge(drawn[row : row + top_k]) for row in range(0, len(drawn), top_k)]
        ends = torch.tensor(rows_of_item).cumsum(0).tolist()
        answers = [groups[end - count : end] for end, count in zip(ends, rows_of_item)]
        told = zip(answers, batch["several"], batch["unfamiliar"])
        return {"items": [{"answers": rows, "several": several, "unfamiliar": found} for rows, several, found in told]}

    def _tokenize(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """Tokens of all prompts, padded on the left: `input_ids`, `attention_mask` of shape [Q, L]."""
        encoded = self.processor.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
        return {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}

    def _encode(self, media: dict[str, torch.Tensor], rows_of_item: list[int]) -> dict[str, torch.Tensor]:
        """Encodes every item once, then gives each of its questions the result: [N, K·m, D] -> [Q, K·m, D]."""
        if not media:
            return {}
        media = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in media.items()
        }
        if "media_hidden_states" not in media:
            encoded = self.model.encode_media(**media)
            media = {name: getattr(encoded, name) for name in _ENCODED_TENSORS}
        counts = torch.tensor(rows_of_item, device=self.device)
        return {name: media[name].repeat_interleave(counts, dim=0) for name in _ENCODED_TENSORS}

    def _read(self, output: Any, prompt_length: int, end_tokens: list[int]) -> list[_Drawn]:
        """The generated sequences; their probabilities are the model's own, before temperature and the like.

        Raises:
            ValueError: the probabilities are NaN, as they are where a weight is.
        """
        log_probs = self.model.compute_transition_scores(
            output.sequences, output.logits, getattr(output, "beam_indices", None), normalize_logits=True
        )
        tokens = output.sequences[:, prompt_length:]
        generated = _generated_mask(tokens, end_tokens)[:, : log_probs.shape[1]]
        totals = log_probs.float().masked_fill(~generated, 0.0).sum(-1)
        if bool(totals.isnan().any()):
            name = self.model.config.name_or_path or type(self.model).__name__
            raise ValueError(f"{name}: the model's probabilities are NaN; expected weights and media that are finite")
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        written = [tuple(row[kept].tolist()) for row, kept in zip(tokens, generated)]
        return [(text.strip(), score, row) for text, score, row in zip(texts, totals.exp().tolist(), written)]

    def _end_tokens(self, options: dict[str, Any]) -> list[int]:
        config = options.get("generation_config") or self.model.generation_config
        ends = options.get("eos_token_id", config.eos_token_id)
        return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)

    def postprocess(self, model_outputs: dict[str, Any], return_unfamiliar: bool = False) -> list[Any]:
        """One item's answers: a list of dicts, or a list of such lists where a list of questions was asked."""
        rows = model_outputs["answers"]
        if return_unfamiliar:
            rows = [[{**entry, "unfamiliar": model_outputs["unfamiliar"]} for entry in row] for row in rows]
        return rows if model_outputs["several"] else rows[0]

    def run_single(
        self, inputs: Any, preprocess_params: dict, forward_params: dict, postprocess_params: dict
    ) -> list[Any]:
        """One item, without a data loader."""
        batch = _collate([self.preprocess(inputs, **preprocess_params)])
        outputs = self.forward(batch, **forward_params)
        return self.postprocess(outputs["items"][0], **postprocess_params)

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict,
        forward_params: dict,
        postprocess_params: dict,
    ) -> Iterator[list[Any]]:
        """Items in batches through a data loader; ragged media are padded, so the library's collator does not fit."""
        if isinstance(inputs, Sized):
            dataset: Any = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            dataset, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), min(num_workers, 1)
        loader = DataLoader(dataset, num_workers=num_workers, batch_size=batch_size, collate_fn=_collate)
        for batch in loader:
            for item in self.forward(batch, **forward_params)["items"]:
                yield self.postprocess(item, **postprocess_params)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves model and processor; `pipeline("video-question-answering", model=folder)` loads them again.

        Raises:
            ValueError: `save_directory` is a file.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def _is_adapted(model: Any) -> bool:
    """Whether an adapter changes the weights, of whose training the model's configuration knows nothing."""
    return bool(getattr(model, "peft_config", None))


def _is_one_video(value: Any) -> bool:
    """A list of pictures is one video; a list of anything else, and an array of five dimensions, are a batch."""
    if not isinstance(value, (list, tuple)):
        return getattr(value, "ndim", 0) != 5
    first: Any = value[0] if value else None
    return hasattr(first, "getpixel") or (hasattr(first, "shape") and len(first.shape) <= 3)


def _media_of(item: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The video of an item and the other keywords for the processor, with as much of the media as the item uses."""
    call = {key: value for key, value in item.items() if key not in _ITEM_KEYS}
    video, audio = _media_source(item.get("video")), _media_source(call.pop("audio", None))
    if not item.get("use_audio", True):
        audio, call["load_audio_from_video"] = None, False
    elif not item.get("use_video", True):
        audio = video if audio is None else audio
    video = video if item.get("use_video", True) else None
    return video, call if audio is None else {**call, "audio": audio}


def _refuse_unknown(given: Iterable[str], known: Collection[str]) -> None:
    """Raises TypeError for names that are not known, with the name that is meant or most like it."""
    for name in given:
        if name not in known:
            meant = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {meant[0]}?)" if meant else ""
            raise TypeError(f"the pipeline does not know the keyword {name}{hint}")


def _media_source(value: Any) -> Any:
    """What the processor reads; `datasets` hands over an undecoded file as a dict of bytes and path."""
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        return value["path"] if value["bytes"] is None else value["bytes"]
    return value


def _shortened(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")


def _as_inputs(video: Any, question: Any, context: Any, known: Collection[str]) -> Any:
    """The arguments of a call as one dict, a list of dicts, or the iterable that was given.

    The columns of a dataset that are not known are left out: its maker did not choose them for this call.
    """
    if question is None:
        if isinstance(video, Mapping):
            return _with_context(video, context)
        if isinstance(video, (list, tuple)) and video and all(isinstance(item, Mapping) for item in video):
            return [_with_context(item, context) for item in video]
        if _is_dataset(video):  # also a `datasets.Dataset`, which the base class does not know
            return (_with_context(_known_columns(item, known), context) for item in video)
        if _is_generator(video):
            return (_with_context(item, context) for item in video)
        raise ValueError("question is missing: give question=, or dicts with the keys 'video' and 'question'")
    video, question, context = _column_as_list(video), _column_as_list(question), _column_as_list(context)
    if isinstance(video, Mapping) or _is_dataset(video) or _is_generator(video):
        raise ValueError("question= cannot be given beside dicts, a generator or a dataset; put it into the dicts")
    if isinstance(video, (list, tuple)) and not video:
        raise ValueError("video is an empty list")
    if _is_one_video(video):
        return {"video": video, "question": question, "context": context}
    count = len(video)
    questions = _spread("question", question, count)
    contexts = _spread("context", context, count)
    return [{"video": v, "question": q, "context": c} for v, q, c in zip(video, questions, contexts)]


def _with_context(item: Any, context: Any) -> Any:
    """An item whose context, where it has none of its own, is the one of the call."""
    if context is None or not isinstance(item, Mapping) or item.get("context") is not None:
        return item
    return {**item, "context": context}


def _column_as_list(value: Any) -> Any:
    """A column of a dataset (`datasets.Column`, the library's `KeyDataset`) as a list; anything else as it is."""
    if isinstance(value, KeyDataset) or (hasattr(value, "features") and isinstance(value, Sequence)):
        return [value[i] for i in range(len(value))]
    return value


def _is_generator(value: Any) -> bool:
    return isinstance(value, Iterator) and not hasattr(value, "read")


def _is_dataset(value: Any) -> bool:
    """A dataset of torch or of `datasets`."""
    return isinstance(value, Dataset) or hasattr(value, "features")


def _known_columns(item: Any, known: Collection[str]) -> Any:
    return {name: value for name, value in item.items() if name in known} if isinstance(item, Mapping) else item


def _spread(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} videos")
    return list(value)


def _questions_of(item: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The questions of an item, and whether they were given as a list."""
    question = item.get("question")
    several = isinstance(question, (list, tuple))
    questions: list[Any] = list(question) if isinstance(question, (list, tuple)) else [question]
    if not questions:
        raise ValueError("question is an empty list")
    for text in questions:
        if not isinstance(text, str):
            raise ValueError(f"question must be a string, got {type(text).__name__}")
        if not text.strip():
            raise ValueError("question is empty")
    return questions, several


def _contexts_of(item: Mapping[str, Any], count: int) -> list[str | None]:
    context = item.get("context")
    contexts = list(context) if isinstance(context, (list, tuple)) else [context] * count
    if len(contexts) != count:
        raise ValueError(f"context has {len(contexts)} entries for {count} questions")
    for text in contexts:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"context must be a string or None, got {type(text).__name__}")
    return contexts


def _collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Puts items into one batch; chunks that an item lacks, or a whole modality, become zeros with mask 0."""
    names = [name for name in _MEDIA_TENSORS if any(name in item["media"] for item in items)]
    chunks = max((tensor.shape[1] for item in items for tensor in item["media"].values()), default=0)
    media = {name: torch.cat([_padded(item["media"], name, chunks, items) for item in items]) for name in names}
    return {
        "prompts": [item["prompts"] for item in items],
        "several": [item["several"] for item in items],
        "unfamiliar": [item["unfamiliar"] for item in items],
        "media": media,
    }


def _padded(media: dict[str, torch.Tensor], name: str, chunks: int, items: list[dict[str, Any]]) -> torch.Tensor:
    """One item's tensor `[1, chunks, ...]`, filled up with zeros."""
    tensor = media.get(name)
    if tensor is None:
        like = next(item["media"][name] for item in items if name in item["media"])
        return like.new_zeros(1, chunks, *like.shape[2:])
    missing = chunks - tensor.shape[1]
    return torch.cat([tensor, tensor.new_zeros(1, missing, *tensor.shape[2:])], dim=1) if missing else tensor


def check_top_k(top_k: Any, name: str = "top_k") -> None:
    """Raises ValueError for a number of answers, given as `name`, that is none, or that no memory is worth."""
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= _MOST_ANSWERS:
        raise ValueError(f"{name}={top_k!r} must be an integer from 1 to {_MOST_ANSWERS}")


def _beam_options(top_k: int, given: dict[str, Any]) -> dict[str, Any]:
    """Several answers come from beams ranked by their plain probability, unless the caller samples."""
    config = given.get("generation_config")
    if top_k == 1 or given.get("do_sample") or getattr(config, "do_sample", False):
        return {}
    beams = given.get("num_beams") or getattr(config, "num_beams", None) or 1
    return {"num_beams": max(top_k, beams), "length_penalty": 0.0}


def _generated_mask(tokens: torch.Tensor, ends: list[int]) -> torch.Tensor:
    """True for an answer's tokens up to and including its end token; what follows is padding."""
    is_end = torch.isin(tokens, torch.tensor(ends, dtype=tokens.dtype, device=tokens.device))
    return is_end.long().cumsum(-1) - is_end.long() == 0


def _merge(drawn: list[_Drawn]) -> list[dict[str, Any]]:
    """One entry for each different text, most probable first; a sequence that was sampled twice counts once."""
    totals: dict[str, float] = {}
    for answer, score in {tokens: (answer, score) for answer, score, tokens in drawn}.values():
        totals[answer] = totals.get(answer, 0.0) + score
    ranked = sorted(totals.items(), key=lambda entry: -entry[1])
    return [{"answer": answer, "score": score} for answer, score in ranked]


def check_geometry(processor: Any, config: Any) -> None:
    """Raises ValueError where the processor makes tensors of another shape, or other tokens, than the model takes."""
    video, audio = config.video_config, config.audio_config
    size = processor.video_processor.size
    pairs = [
        ("video_processor.size", (size["height"], size["width"]), (video.image_size, video.image_size)),
        ("video_processor.num_frames", processor.video_processor.num_frames, video.num_frames),
    ]
    extractor = getattr(processor, "feature_extractor", None)
    if audio is not None and extractor is not None:
        pairs.append(("feature_extractor.num_steps", extractor.num_steps, audio.num_steps))
        pairs.append(("feature_extractor.num_mel_bins", extractor.num_mel_bins, audio.num_mel_bins))
    for name, given, expected in pairs:
        if given != expected:
            raise ValueError(f"processor and model disagree: {name} is {given}, the model's config says {expected}")
    entries = len(getattr(processor, "tokenizer", None) or ())
    vocab_size = config.get_text_config(decoder=True).vocab_size
    if entries > vocab_size:
        raise ValueError(
            f"processor and model disagree: the tokenizer has {entries} entries, the model's config says "
            f"text_config.vocab_size={vocab_size}"
        )
