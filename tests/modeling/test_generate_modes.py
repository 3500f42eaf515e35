"""Every way of generating against decoding written out (`generation_references`), with media encoded once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    CompileConfig,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.generation.streamers import BaseStreamer

from mirasol_hf.modeling.text_cache_mirasol import CACHE_NAME
from tests.modeling import generation_references as references
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
STEPS = 6
PLAIN: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None}
KINDS = ("both", "video", "audio", "text", "ragged", "one row without")


def choose_media(media: Media, kind: str, clips: int = 2) -> dict[str, torch.Tensor]:
    """Tensors of two clips with what `kind` names; in "ragged" rows differ in chunks and modalities."""
    batch = media(clips, 3)
    if kind == "text":
        return {}
    if kind in ("video", "audio"):
        names = ("pixel_values_videos", "video_mask") if kind == "video" else ("input_features", "audio_mask")
        return {name: batch[name] for name in names}
    if kind == "ragged":
        batch["video_mask"][-1, 1:] = batch["audio_mask"][-1, 2:] = batch["audio_mask"][0, 0] = 0
    if kind == "one row without":
        batch["video_mask"][-1] = batch["audio_mask"][-1] = 0
    return batch


def expected_calls(media: dict[str, torch.Tensor]) -> list[str]:
    towers = {"pixel_values_videos": "video_tower", "input_features": "audio_tower"}
    return [tower for name, tower in towers.items() if name in media]


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "dynamic cache": {"cache_implementation": "dynamic"},
    "static cache": {"cache_implementation": "static"},
    "chunked prefill": {"prefill_chunk_size": 4},
    "chunked prefill into a static cache": {"prefill_chunk_size": 4, "cache_implementation": "static"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_greedy_equals_the_reference(model: Any, media: Media, prompts: torch.Tensor, mode: str, kind: str) -> None:
    batch = choose_media(media, kind)
    expected = references.greedy(model, prompts, STEPS, **batch)
    calls = references.count_encodings(model)
    assert torch.equal(model.generate(prompts, **batch, **PLAIN, **MODES[mode]), expected)
    assert calls == expected_calls(batch)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_draft_and_lookup_equal_the_reference(model: Any, media: Media, prompts: torch.Tensor, kind: str) -> None:
    repeated = prompts[:1].repeat(1, 2)  # so that the lookup finds something
    batch = choose_media(media, kind, clips=1)
    expected = references.greedy(model, repeated, 12, **batch)
    drafter = build(
        combiner_config={"num_output_tokens": 2}, time_config={"hidden_size": 16}, text_config={"num_hidden_layers": 1}
    )
    for options in ({"assistant_model": drafter}, {"assistant_model": model}, {"prompt_lookup_num_tokens": 3}):
        calls = references.count_encodings(model)
        drafted = references.count_encodings(drafter)
        assert torch.equal(model.generate(repeated, **batch, **{**PLAIN, "max_new_tokens": 12}, **options), expected)
        if options.get("assistant_model") is not model:  # as its own drafter it encodes twice: for each role once
            assert calls == expected_calls(batch)
        if options.get("assistant_model") is drafter:
            assert drafted == expected_calls(batch)


def test_early_exit_equals_the_reference(media: Media, prompts: torch.Tensor) -> None:
    model = build(text_config={"num_hidden_layers": 3, "cross_attention_every": 2})
    batch = media(1, 3)
    expected = references.greedy(model, prompts[:1], STEPS, **batch)
    runs = [0, 0, 0]
    for index, layer in enumerate(model.model.language_model.layers):
        layer.register_forward_hook(lambda *_, index=index: runs.__setitem__(index, runs[index] + 1))
    assert torch.equal(model.generate(prompts[:1], **batch, **PLAIN, assistant_early_exit=2), expected)
    assert runs[0] == runs[1] > runs[2] > 0
    assert model.config.num_hidden_layers == model.config.text_config.num_hidden_layers == 3


def test_a_drafter_takes_encoded_media_it_cannot_use_as_none(model: Any, media: Media, prompts: torch.Tensor) -> None:
    encoded = model.encode_media(**media(1, 3))
    memory = {"media_hidden_states": encoded.media_hidden_states}
    expected = references.greedy(model, prompts[:1], STEPS, **memory)
    for drafter in (build(time_config={"hidden_size": 16}), build(text_config={"num_hidden_layers": 1})):
        assert torch.equal(model.generate(prompts[:1], **memory, **PLAIN, assistant_model=drafter), expected)


def test_drafts_under_sampling_follow_the_model(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(1, 3)
    expected = references.greedy(model, prompts[:1], STEPS, **batch)
    drafter = build(text_config={"num_hidden_layers": 1})
    options: dict[str, Any] = {**PLAIN, "do_sample": True, "top_k": 1}  # one token to draw from
    assert torch.equal(model.generate(prompts[:1], **batch, **options, assistant_model=drafter), expected)


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_sampling(model: Any, media: Media, prompts: torch.Tensor, copies: int, kind: str, cache: str | None) -> None:
    batch = choose_media(media, kind)
    torch.manual_seed(3)
    expected = references.sampled(model, prompts, STEPS, 1.3, 20, copies, **batch)
    calls = references.count_encodings(model)
    torch.manual_seed(3)
    options: dict[str, Any] = {**PLAIN, "do_sample": True, "temperature": 1.3, "top_k": 20}
    generated = model.generate(prompts, **batch, **options, num_return_sequences=copies, cache_implementation=cache)
    assert torch.equal(generated, expected)
    assert calls == expected_calls(batch)


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("draw", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_beams(model: Any, media: Media, prompts: torch.Tensor, draw: bool, kind: str, cache: str | None) -> None:
    batch = choose_media(media, kind)
    torch.manual_seed(3)
    sequences, scores = references.beams(model, prompts, STEPS, 3, draw, **batch)
    calls = references.count_encodings(model)
    torch.manual_seed(3)
    output = model.generate(
        prompts,
        **batch,
        **{**PLAIN, "do_sample": draw},
        top_k=0,
        num_beams=3,
        num_return_sequences=2,
        length_penalty=0.0,
        cache_implementation=cache,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert torch.equal(output.sequences.unflatten(0, (2, 2)), sequences[:, :2])
    torch.testing.assert_close(output.sequences_scores.unflatten(0, (2, 2)), scores[:, :2], atol=1e-4, rtol=0)
    assert calls == expected_calls(batch)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"cache_implementation": "static"}, {"use_cache": False}])
def test_left_padding(model: Any, media: Media, prompts: torch.Tensor, options: dict[str, Any]) -> None:
    batch = choose_media(media, "ragged")
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    together = model.generate(prompts * mask, attention_mask=mask, **batch, **PLAIN, **options)
    for row, start in ((0, 3), (1, 0)):
        single = {name: value[row : row + 1] for name, value in batch.items()}
        alone = model.generate(prompts[row : row + 1, start:], **single, **PLAIN, **options)
        assert torch.equal(together[row : row + 1, start:], alone)
    if options.get("num_beams") is None:
        assert torch.equal(together, references.greedy(model, prompts * mask, STEPS, mask, **batch))


class Ban(LogitsProcessor):
    """Forbids the token that came last, and every even one."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, ::2] = -torch.inf
        return scores.scatter(1, input_ids[:, -1:], -torch.inf)


class Collected(BaseStreamer):
    """Keeps what `generate` hands over."""

    def __init__(self) -> None:
        self.tokens: list[torch.Tensor] = []
        self.has_ended = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens.append(value.flatten())

    def end(self) -> None:
        self.has_ended = True


def test_logits_processors_and_streamers(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(1, 3)
    expected = references.greedy(model, prompts[:1], STEPS, change=Ban(), **batch)
    streamer = Collected()
    processors = LogitsProcessorList([Ban()])
    generated = model.generate(prompts[:1], **batch, **PLAIN, logits_processor=processors, streamer=streamer)
    assert torch.equal(generated, expected)
    assert not torch.equal(generated, references.greedy(model, prompts[:1], STEPS, **batch))
    assert streamer.has_ended and torch.equal(torch.cat(streamer.tokens), expected[0])


def test_text_streamer_and_stop_strings(random_parts: Any, media: Media) -> None:
    model, processor = random_parts
    prompt = processor(text="what is heard ?", return_tensors="pt")["input_ids"]
    video, audio = model.config.video_config, model.config.audio_config
    generator = torch.Generator().manual_seed(5)
    batch = {
        "pixel_values_videos": torch.randn(1, 2, video.num_frames, 3, video.image_size, video.image_size),
        "input_features": torch.randn(1, 2, audio.num_steps, audio.num_mel_bins, generator=generator),
    }
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "repetition_penalty": 2.0}
    whole = model.generate(prompt, **batch, **options, eos_token_id=None)[0, prompt.shape[1] :]
    words = [processor.tokenizer.decode(token).strip() for token in whole]
    stop = next(word for word in words[3:] if len(word) > 1)
    stopped = model.generate(
        prompt, **batch, **options, eos_token_id=None, stop_strings=[stop], tokenizer=processor.tokenizer
    )
    written = processor.tokenizer.decode(stopped[0, prompt.shape[1] :])
    assert stop in written and len(stopped[0]) < prompt.shape[1] + len(whole)
    assert torch.equal(stopped[0, prompt.shape[1] :], whole[: stopped.shape[1] - prompt.shape[1]])


def test_scores_attentions_and_hidden_states(model: Any, media: Media, prompts: torch.Tensor) -> None:
    model.set_attn_implementation("eager")
    batch = choose_media(media, "ragged")
    wanted = {"output_scores": True, "output_logits": True, "output_attentions": True, "output_hidden_states": True}
    output = model.generate(prompts, **batch, **PLAIN, **wanted, return_dict_in_generate=True)
    forward = model(
        input_ids=output.sequences[:, :-1], **batch, output_attentions=True, output_hidden_states=True, use_cache=False
    )
    length = prompts.shape[1]
    for step in range(STEPS):
        last = length + step - 1
        torch.testing.assert_close(output.scores[step], forward.logits[:, last], atol=1e-5, rtol=0)
        torch.testing.assert_close(output.logits[step], forward.logits[:, last], atol=1e-5, rtol=0)
        queries = slice(0, length) if step == 0 else slice(last, last + 1)
        for layer in range(2):
            weights = forward.attentions[layer][:, :, queries, : last + 1]
            torch.testing.assert_close(output.attentions[step][layer], weights, atol=1e-5, rtol=0)
        for layer in range(3):
            states = forward.hidden_states[layer][:, queries]
            torch.testing.assert_close(output.hidden_states[step][layer], states, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_turns_with_the_cache_kept(model: Any, media: Media, prompts: torch.Tensor, kind: str) -> None:
    batch = choose_media(media, kind)
    first = model.generate(prompts, **batch, **PLAIN, return_dict_in_generate=True)
    second_prompt = torch.cat((first.sequences, prompts.flip(1)), dim=1)
    expected = references.greedy(model, second_prompt, STEPS, **batch)
    calls = references.count_encodings(model)
    second = model.generate(second_prompt, **PLAIN, cache=first[CACHE_NAME], return_dict_in_generate=True)
    assert torch.equal(second.sequences, expected)
    third_prompt = torch.cat((second.sequences, prompts), dim=1)
    third = model.generate(third_prompt, **batch, **PLAIN, cache=second[CACHE_NAME])  # given once more
    assert calls == []
    assert torch.equal(third, references.greedy(model, third_prompt, STEPS, **batch))


@pytest.mark.parametrize("make", [lambda config: DynamicCache(config=config), lambda config: DynamicCache()])
def test_a_cache_of_the_callers_keeps_the_media(model: Any, media: Media, prompts: torch.Tensor, make: Any) -> None:
    batch = choose_media(media, "ragged")
    cache = make(model.config)
    first = model.generate(prompts, **batch, **PLAIN, cache=cache)
    assert isinstance(cache, DynamicCache) and cache.get_seq_length() == first.shape[1] - 1
    prompt = torch.cat((first, prompts), dim=1)
    assert torch.equal(model.generate(prompt, **PLAIN, cache=cache), references.greedy(model, prompt, STEPS, **batch))
    cache.reset()
    other = {name: value.flip(0) for name, value in media(2, 2, seed=9).items()}
    again = model.generate(prompts, **other, **PLAIN, cache=cache)
    assert torch.equal(again, references.greedy(model, prompts, STEPS, **other))


def test_an_encoder_decoder_cache_of_the_callers(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = choose_media(media, "ragged")
    cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
    first = model.generate(prompts, **batch, **PLAIN, cache=cache)
    prompt = torch.cat((first, prompts), dim=1)
    second = model.generate(prompt, **PLAIN, cache=cache)
    assert torch.equal(second, references.greedy(model, prompt, STEPS, **batch))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_encoded_media_given_by_the_caller(
    model: Any, media: Media, prompts: torch.Tensor, options: dict[str, Any]
) -> None:
    batch = choose_media(media, "ragged")
    torch.manual_seed(1)
    expected = model.generate(prompts, **batch, **{**PLAIN, **options})
    encoded = model.encode_media(**batch)
    calls = references.count_encodings(model)
    memory = {name: encoded[name] for name in ("media_hidden_states", "media_attention_mask")}
    torch.manual_seed(1)
    assert torch.equal(model.generate(prompts, **memory, **{**PLAIN, **options}), expected)
    assert calls == []


def test_inputs_embeds(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = choose_media(media, "ragged")
    expected = references.greedy(model, prompts, STEPS, **batch)
    embeds = model.get_input_embeddings()(prompts)
    assert torch.equal(model.generate(prompts, inputs_embeds=embeds, **batch, **PLAIN), expected)
    assert torch.equal(model.generate(inputs_embeds=embeds, **batch, **PLAIN), expected[:, prompts.shape[1] :])
    beams = model.generate(inputs_embeds=embeds, **batch, **PLAIN, num_beams=2)
    assert torch.equal(beams, model.generate(prompts, **batch, **PLAIN, num_beams=2)[:, prompts.shape[1] :])
    static = model.generate(inputs_embeds=embeds, **batch, **PLAIN, cache_implementation="static")
    assert torch.equal(static, expected[:, prompts.shape[1] :])
    first = model.generate(inputs_embeds=embeds, **batch, **PLAIN, return_dict_in_generate=True)
    more = torch.cat((embeds, model.get_input_embeddings()(first.sequences)), dim=1)
    second = model.generate(inputs_embeds=more, **PLAIN, cache=first[CACHE_NAME])
    longer = references.greedy(model, prompts, 2 * STEPS, **batch)
    assert torch.equal(second, longer[:, prompts.shape[1] + STEPS :])


def test_without_a_prompt_generation_starts_from_bos(model: Any, media: Media) -> None:
    batch = media(2, 3)
    start = torch.full((2, 1), model.config.text_config.bos_token_id)
    assert torch.equal(model.generate(**batch, **PLAIN), references.greedy(model, start, STEPS, **batch))


def test_position_ids_and_logits_to_keep(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    expected = references.greedy(model, prompts, STEPS, **batch)
    positions = torch.arange(prompts.shape[1]).expand(2, -1)
    assert torch.equal(model.generate(prompts, position_ids=positions, **batch, **PLAIN), expected)
    assert torch.equal(model.generate(prompts, logits_to_keep=0, **batch, **PLAIN), expected)
    for kept in (1, 3, torch.tensor([2, 4])):
        logits = model(input_ids=prompts, **batch, logits_to_keep=kept).logits
        places = kept if isinstance(kept, torch.Tensor) else slice(-kept, None)
        torch.testing.assert_close(logits, model(input_ids=prompts, **batch).logits[:, places])


def test_unknown_arguments_of_generate(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    with pytest.raises(ValueError, match="pixel_value_videos"):
        model.generate(prompts, pixel_value_videos=batch["pixel_values_videos"], **PLAIN)


@pytest.mark.slow
def test_text_only_continuous_batching(model: Any, prompts: torch.Tensor) -> None:
    model.generation_config.max_new_tokens = STEPS
    model.generation_config.eos_token_id = -1
    model.generation_config.do_sample = False
    outputs = model.generate_batch(prompts.tolist(), progress_bar=False)
    generated = torch.tensor([outputs[name].generated_tokens for name in sorted(outputs)])
    assert torch.equal(generated, references.greedy(model, prompts, STEPS)[:, prompts.shape[1] :])


def test_continuous_batching_drops_nothing_silently(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    encoded = model.encode_media(**batch)
    filled = model.generate(prompts, **batch, **PLAIN, return_dict_in_generate=True)[CACHE_NAME]
    for dropped in (
        {name: batch[name] for name in ("pixel_values_videos", "video_mask")},
        {name: batch[name] for name in ("input_features", "audio_mask")},
        {"media_hidden_states": encoded.media_hidden_states},
        {"cache": filled},
        {"inputs_embeds": model.get_input_embeddings()(prompts)},
    ):
        said = "token ids alone and would leave out " + next(iter(dropped))
        with pytest.raises(ValueError, match=said):
            model.generate(prompts, **dropped, **PLAIN, cache_implementation="paged")
        with pytest.raises(ValueError, match=said):
            model.generate_batch(prompts.tolist(), **dropped)
    padded = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    with pytest.raises(ValueError, match="padding that attention_mask hides"):
        model.generate(prompts, attention_mask=padded, **PLAIN, cache_implementation="paged")


def test_a_generation_config_cannot_drop_media(model: Any, media: Media, prompts: torch.Tensor) -> None:
    """The library looks for "paged" among the arguments of the call only; elsewhere it decodes as usual."""
    batch = media(2, 3)
    config = GenerationConfig(**PLAIN, cache_implementation="paged")
    expected = references.greedy(model, prompts, STEPS, **batch)
    assert torch.equal(model.generate(prompts, **batch, generation_config=config), expected)


@pytest.mark.parametrize("kind", ["ragged", "text"])
def test_compiled_decoding_without_graph_breaks(
    model: Any, media: Media, prompts: torch.Tensor, kind: str, backend: str = "eager"
) -> None:
    torch.compiler.reset()
    config = CompileConfig(fullgraph=True, dynamic=False, backend=backend, mode=None)
    config._compile_all_devices = True
    first = choose_media(media, kind)
    others = {name: value.flip(0) for name, value in first.items()}
    for batch, text in ((first, prompts), (others, prompts.flip(1))):
        expected = references.greedy(model, text, STEPS, **batch)
        with torch._dynamo.config.patch(error_on_recompile=True):
            generated = model.generate(text, **batch, **PLAIN, cache_implementation="static", compile_config=config)
        assert hasattr(model, "_compiled_call")
        assert torch.equal(generated, expected)


@pytest.mark.slow
def test_decoding_compiled_to_machine_code(model: Any, media: Media, prompts: torch.Tensor) -> None:
    test_compiled_decoding_without_graph_breaks(model, media, prompts, "ragged", backend="inductor")
