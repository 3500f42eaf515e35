"""A cache answers about the media that it was filled from: the same ones may be given again, others are an error."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import CompileConfig, DynamicCache, EncoderDecoderCache, StaticCache

from mirasol_hf.modeling.media_identity_mirasol import number_of, numbers_of_raw
from mirasol_hf.modeling.text_cache_mirasol import CACHE_NAME
from tests.modeling import generation_references as references
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
STEPS = 4
PLAIN: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None}
OTHER = "beside a cache that holds other media"
UNKNOWN = "beside a cache that holds media that these cannot be compared with"
CACHES: dict[str, Callable[[Any], Any]] = {
    "dynamic": lambda config: DynamicCache(config=config),
    "static": lambda config: StaticCache(config=config, max_cache_len=40),
    "pair": lambda config: EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config)),
}


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def encode(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    encoded = model.encode_media(**batch)
    return {name: encoded[name] for name in ("media_hidden_states", "media_attention_mask")}


def again(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same media in other tensors, as when a file is read once more."""
    return {name: value.clone() for name, value in batch.items()}


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("given", ["raw", "encoded"])
def test_generate(model: Any, media: Media, prompts: torch.Tensor, kind: str, given: str) -> None:
    ours, theirs = media(2, 3), media(2, 3, seed=9)
    first = ours if given == "raw" else encode(model, ours)
    cache = CACHES[kind](model.config)
    answered = model.generate(prompts, **first, **PLAIN, cache=cache)
    prompt = torch.cat((answered, prompts), dim=1)
    silent = media(2, 3)
    silent["audio_mask"][0, 1] = 0
    for other in (theirs, silent, media(2, 2), encode(model, theirs), {"input_features": ours["input_features"]}):
        with pytest.raises(ValueError, match=OTHER if given == "raw" or "media_hidden_states" in other else UNKNOWN):
            model.generate(prompt, **other, **PLAIN, cache=cache)
        with pytest.raises(ValueError, match=OTHER if given == "raw" or "media_hidden_states" in other else UNKNOWN):
            model(input_ids=prompt, **other, cache=cache)
    expected = references.greedy(model, prompt, STEPS, **ours)
    calls = references.count_encodings(model)
    assert torch.equal(model.generate(prompt, **again(first), **PLAIN, cache=cache), expected)
    assert calls == []
    longer = torch.cat((expected, prompts), dim=1)
    same = encode(model, ours)
    assert torch.equal(
        model.generate(longer, **same, **PLAIN, cache=cache), references.greedy(model, longer, STEPS, **ours)
    )


@pytest.mark.parametrize("kind", CACHES)
def test_forward(model: Any, media: Media, prompts: torch.Tensor, kind: str) -> None:
    ours = media(2, 3)
    whole = model(input_ids=prompts.repeat(1, 2), **ours).logits[:, 6:]
    for first, second in ((ours, again(ours)), (ours, {}), (ours, encode(model, ours)), (encode(model, ours),) * 2):
        cache = CACHES[kind](model.config)
        model(input_ids=prompts, **first, cache=cache)
        rest = model(input_ids=prompts, **second, cache=cache)
        torch.testing.assert_close(rest.logits, whole, atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match=OTHER):
            model(input_ids=prompts, **encode(model, media(2, 3, seed=9)), cache=cache)


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("empty", ["reset", "crop"])
def test_an_emptied_cache_takes_others(model: Any, media: Media, prompts: torch.Tensor, kind: str, empty: str) -> None:
    cache = CACHES[kind](model.config)
    model.generate(prompts, **media(2, 3), **PLAIN, cache=cache)
    if empty == "crop" and kind == "static" and not cache.is_croppable:
        pytest.skip("Transformers before 5.24 cannot crop a static cache")
    cache.reset() if empty == "reset" else cache.crop(-int(cache.get_seq_length()))
    theirs = media(2, 2, seed=9)  # of another length too
    answered = model.generate(prompts, **theirs, **PLAIN, cache=cache)
    assert torch.equal(answered, references.greedy(model, prompts, STEPS, **theirs))
    prompt = torch.cat((answered, prompts), dim=1)
    with pytest.raises(ValueError, match=OTHER):
        model.generate(prompt, **media(2, 3), **PLAIN, cache=cache)


def test_crop_0_removes_nothing(model: Any, media: Media, prompts: torch.Tensor) -> None:
    """As in the library, which calls it whenever a whole draft was right."""
    ours = media(2, 3)
    cache = DynamicCache(config=model.config)
    answered = model.generate(prompts, **ours, **PLAIN, cache=cache)
    length = cache.get_seq_length()
    cache.crop(0)
    assert cache.get_seq_length() == length
    prompt = torch.cat((answered, prompts), dim=1)
    with pytest.raises(ValueError, match=OTHER):
        model.generate(prompt, **media(2, 3, seed=9), **PLAIN, cache=cache)
    expected = references.greedy(model, prompt, STEPS, **ours)
    assert torch.equal(model.generate(prompt, **PLAIN, cache=cache), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copied_cache_knows_its_media(model: Any, media: Media, prompts: torch.Tensor, copied: Any) -> None:
    ours = media(2, 3)
    output = model.generate(prompts, **ours, **PLAIN, return_dict_in_generate=True)
    cache = copied(output[CACHE_NAME])
    output[CACHE_NAME].reset()
    prompt = torch.cat((output.sequences, prompts), dim=1)
    with pytest.raises(ValueError, match=OTHER):
        model.generate(prompt, **media(2, 3, seed=9), **PLAIN, cache=cache)
    expected = references.greedy(model, prompt, STEPS, **ours)
    assert torch.equal(model.generate(prompt, **again(ours), **PLAIN, cache=cache), expected)


@pytest.mark.parametrize("kind", ["dynamic", "pair"])
def test_rows_that_are_repeated_selected_and_reordered(
    model: Any, media: Media, prompts: torch.Tensor, kind: str
) -> None:
    ours = media(2, 3)
    ours["video_mask"][0, 1:] = ours["audio_mask"][0, 1:] = 0
    cache = CACHES[kind](model.config)
    model(input_ids=prompts, **ours, cache=cache)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([3, 0, 1]))
    cache.reorder_cache(torch.tensor([1, 0, 2]))
    rows = torch.tensor([0, 1, 0])
    taken = {name: value[rows] for name, value in ours.items()}
    expected = model(input_ids=prompts[rows].repeat(1, 2), **taken).logits[:, 6:]
    for wrong in ({name: value.roll(1, 0) for name, value in taken.items()}, ours):
        with pytest.raises(ValueError, match=OTHER):
            model(input_ids=prompts[rows[: len(wrong["video_mask"])]], **wrong, cache=cache)
    torch.testing.assert_close(
        model(input_ids=prompts[rows], **taken, cache=cache).logits, expected, atol=1e-5, rtol=0
    )


def test_beams_and_indexed_clips(model: Any, media: Media, prompts: torch.Tensor) -> None:
    ours, index = media(2, 3), torch.tensor([1, 1])
    for options in ({"num_beams": 2, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 2}):
        output = model.generate(
            prompts, **ours, media_index=index, **{**PLAIN, **options}, return_dict_in_generate=True
        )
        prompt = torch.cat((output.sequences, prompts.repeat_interleave(2, dim=0)), dim=1)
        cache = output[CACHE_NAME]
        expected = model.generate(prompt, **PLAIN, cache=copy.deepcopy(cache))
        rows = index.repeat_interleave(2)
        with pytest.raises(ValueError, match=OTHER):
            model.generate(prompt, **ours, media_index=1 - rows, **PLAIN, cache=cache)
        assert torch.equal(model.generate(prompt, **ours, media_index=rows, **PLAIN, cache=cache), expected)


@pytest.mark.parametrize("options", [{"prefill_chunk_size": 4}, {"prompt_lookup_num_tokens": 2}, {"drafted": True}])
def test_other_ways_of_decoding(model: Any, media: Media, prompts: torch.Tensor, options: dict[str, Any]) -> None:
    if options.pop("drafted", False):
        options["assistant_model"] = build(text_config={"num_hidden_layers": 1})
    ours, cache = media(1, 3), DynamicCache(config=model.config)
    first = model.generate(prompts[:1], **ours, **PLAIN, **options, cache=cache)
    prompt = torch.cat((first, prompts[:1]), dim=1)
    with pytest.raises(ValueError, match=OTHER):
        model.generate(prompt, **media(1, 3, seed=9), **PLAIN, **options, cache=cache)
    second = model.generate(prompt, **again(ours), **PLAIN, **options, cache=cache)
    assert torch.equal(second, references.greedy(model, prompt, STEPS, **ours))


def test_compiled_decoding(model: Any, media: Media, prompts: torch.Tensor) -> None:
    torch.compiler.reset()
    ours, theirs = media(2, 3), media(2, 3, seed=9)
    config = CompileConfig(fullgraph=True, dynamic=False, backend="eager", mode=None)
    config._compile_all_devices = True
    cache = StaticCache(config=model.config, max_cache_len=40)
    first = model.generate(prompts, **ours, **PLAIN, compile_config=config, cache=cache)
    prompt = torch.cat((first, prompts), dim=1)
    with pytest.raises(ValueError, match=OTHER):
        model.generate(prompt, **theirs, **PLAIN, compile_config=config, cache=cache)
    second = model.generate(prompt, **again(ours), **PLAIN, compile_config=config, cache=cache)
    assert torch.equal(second, references.greedy(model, prompt, STEPS, **ours))
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_by_hand(model: Any, media: Media, prompts: torch.Tensor) -> None:
    """What compares is left to Python; a program of one graph does not take both."""
    torch.compiler.reset()
    ours, theirs = media(2, 3), media(2, 3, seed=9)
    cache = model(input_ids=prompts, **ours)[CACHE_NAME]
    compiled = torch.compile(model, backend="eager")
    with pytest.raises(ValueError, match=OTHER):
        compiled(input_ids=prompts, **theirs, cache=cache)
    expected = model(input_ids=prompts, cache=copy.deepcopy(cache)).logits
    torch.testing.assert_close(compiled(input_ids=prompts, **ours, cache=cache).logits, expected)
    torch.compiler.reset()  # or the programs that are there serve
    with pytest.raises(torch._dynamo.exc.Unsupported, match="leave them out"):
        torch.compile(model, backend="eager", fullgraph=True)(input_ids=prompts, **ours, cache=cache)
    torch.compiler.reset()


def test_numbers_tell_media_apart() -> None:
    """A square of any size in any place; one bit; the order of chunks; and the number is that of the clip alone."""
    numbers = set()
    places = [(size, top, left) for size in (1, 8) for top in range(0, 24, 2) for left in range(24)]
    for size, top, left in places:
        clip = torch.full((1, 2, 2, 3, 32, 32), -1.0)
        clip[..., top : top + size, left : left + size] = 1.0
        numbers.add(int(number_of(clip, None)))
    assert len(numbers) == len(places)
    clips = torch.randn(3, 2, 4, 3, 150, 150, generator=torch.Generator().manual_seed(1))  # more than one piece
    changed = clips.clone()
    changed[1, 1, 2, 0, 70, 70] = torch.nextafter(changed[1, 1, 2, 0, 70, 70], torch.tensor(9.0))
    assert (number_of(clips, None) == number_of(changed, None)).tolist() == [True, False, True]
    assert not (number_of(clips, None) == number_of(clips.flip(1), None)).any()
    assert torch.equal(number_of(clips, None)[1:], number_of(clips[1:], torch.ones(2, 2, dtype=torch.bool)))
    assert number_of(clips.bfloat16(), None).unique().shape == (3,)
    video, sound = {"pixel_values_videos": clips}, {"input_features": clips}
    assert not (numbers_of_raw(video) == numbers_of_raw(sound)).any()
