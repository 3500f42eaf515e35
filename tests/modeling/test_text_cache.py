"""The cache that generation returns: of the library's own kinds, and with the media in it."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, QuantizedCache, StaticCache

from mirasol_hf.modeling.text_cache_mirasol import CACHE_NAME, has_media, keep_media
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
OPTIONS: dict[str, Any] = {
    "max_new_tokens": 5,
    "do_sample": False,
    "eos_token_id": None,
    "return_dict_in_generate": True,
    "output_logits": True,
}


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize(
    "implementation, kind, length",
    [(None, DynamicCache, 10), ("static", StaticCache, 10), ("dynamic", DynamicCache, 10)],
)
def test_kind_and_shapes(
    model: Any, media: Media, prompts: torch.Tensor, implementation: str | None, kind: type[Cache], length: int
) -> None:
    output = model.generate(prompts, **media(2, 3), **OPTIONS, cache_implementation=implementation)
    cache = output[CACHE_NAME]
    assert isinstance(cache, kind) and len(cache) == 2
    assert cache.is_compileable == (implementation == "static")
    assert int(cache.get_seq_length()) == length  # the last token is not in it
    for layer in cache.layers:
        assert layer.keys.shape == layer.values.shape == (2, 1, length, 12)
    for layer in cache.cross_attention_cache.layers:
        assert layer.keys.shape == layer.values.shape == (2, 1, 9, 12)


def test_text_alone_needs_no_room_for_media(model: Any, prompts: torch.Tensor) -> None:
    cache = model.generate(prompts, **OPTIONS)[CACHE_NAME]
    assert isinstance(cache, DynamicCache) and not has_media(cache)


def test_media_may_come_after_text(model: Any, media: Media, prompts: torch.Tensor) -> None:
    """A cache that was filled without media takes them in when they come; what was read before stays unseeing."""
    batch = media(2, 3)
    first = model(input_ids=prompts, use_cache=True)
    second = model(input_ids=prompts, cache=first[CACHE_NAME], **batch)
    assert has_media(second[CACHE_NAME])
    third = model(input_ids=prompts, cache=second[CACHE_NAME])
    blind = model(input_ids=prompts, cache=model(input_ids=prompts.repeat(1, 2), use_cache=True)[CACHE_NAME])
    assert (third.logits - blind.logits).abs().max() > 1e-2


def test_quantised(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    options = {**OPTIONS, "cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
    output = model.generate(prompts, **batch, **options)
    assert isinstance(output[CACHE_NAME], QuantizedCache)
    expected = model.generate(prompts, **batch, **OPTIONS)
    torch.testing.assert_close(output.logits[0], expected.logits[0])
    same = (output.sequences == expected.sequences).all(1)
    for step in range(1, 5):  # 8 bits: about two digits
        torch.testing.assert_close(output.logits[step][same], expected.logits[step][same], atol=0.3, rtol=0.1)
    with pytest.raises(ValueError, match="cache_implementation"):
        model.generate(prompts, **batch, **options, cache=DynamicCache(config=model.config))


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["offloaded", "offloaded_static"])
def test_offloaded(model: Any, media: Media, prompts: torch.Tensor, implementation: str) -> None:
    batch = {name: value.cuda() for name, value in media(2, 3).items()}
    expected = model.cuda().generate(prompts.cuda(), **batch, **OPTIONS).sequences
    actual = model.generate(prompts.cuda(), **batch, **OPTIONS, cache_implementation=implementation)
    assert torch.equal(actual.sequences, expected)


def filled(model: Any, media: Media, prompts: torch.Tensor, cache: Cache | None = None) -> Cache:
    batch = media(2, 3)
    batch["video_mask"][0, 1:] = batch["audio_mask"][0, 1:] = 0
    return model(input_ids=prompts, cache=cache, use_cache=True, **batch)[CACHE_NAME]


@pytest.mark.parametrize("make", [lambda config: None, lambda config: StaticCache(config=config, max_cache_len=20)])
def test_rows_are_taken_with_their_media(model: Any, media: Media, prompts: torch.Tensor, make: Any) -> None:
    expected = model(input_ids=prompts, cache=filled(model, media, prompts, make(model.config))).logits
    cache = filled(model, media, prompts, make(model.config))
    cache.reorder_cache(torch.tensor([1, 0]))
    torch.testing.assert_close(model(input_ids=prompts.flip(0), cache=cache).logits, expected.flip(0))


def test_rows_are_repeated_and_selected_with_their_media(model: Any, media: Media, prompts: torch.Tensor) -> None:
    expected = model(input_ids=prompts, cache=filled(model, media, prompts)).logits
    cache = filled(model, media, prompts)
    cache.batch_repeat_interleave(2)
    copied = copy.deepcopy(cache)
    repeated = model(input_ids=prompts.repeat_interleave(2, dim=0), cache=cache).logits
    torch.testing.assert_close(repeated, expected.repeat_interleave(2, dim=0))
    copied.batch_select_indices(torch.tensor([3, 0]))
    selected = model(input_ids=prompts[[1, 0]], cache=copied).logits
    torch.testing.assert_close(selected, expected[[1, 0]])


def test_cropping_leaves_the_media(model: Any, media: Media, prompts: torch.Tensor) -> None:
    cache = filled(model, media, prompts)
    expected = model(input_ids=prompts[:, 4:], cache=copy.deepcopy(cache)).logits
    model(input_ids=prompts, cache=cache)
    cache.crop(-prompts.shape[1])
    torch.testing.assert_close(model(input_ids=prompts[:, 4:], cache=cache).logits, expected)


def test_another_kind_of_cache_is_left_alone(model: Any, media: Media, prompts: torch.Tensor) -> None:
    class Own(DynamicCache):
        pass

    cache = Own(config=model.config)
    keep_media(cache, model.config.text_config, 9)
    assert type(cache) is Own
    options = {**OPTIONS, "return_dict_in_generate": False, "output_logits": False}
    expected = model.generate(prompts, **media(2, 3), **options)
    assert torch.equal(model.generate(prompts, **media(2, 3), **options, cache=cache), expected)


def test_layers_without_cross_attention(media: Media, prompts: torch.Tensor) -> None:
    model = build(text_config={"cross_attention_every": 2, "num_hidden_layers": 3})
    for cache in (None, EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))):
        first = model(input_ids=prompts, cache=cache, use_cache=True, **media(2, 3))
        rest = model(input_ids=prompts, cache=first[CACHE_NAME])
        whole = model(input_ids=prompts.repeat(1, 2), **media(2, 3)).logits[:, 6:]
        torch.testing.assert_close(rest.logits, whole, atol=1e-5, rtol=0)


def test_either_name_of_the_cache(model: Any, media: Media, prompts: torch.Tensor) -> None:
    first = filled(model, media, prompts)
    expected = model(input_ids=prompts, cache=copy.deepcopy(first)).logits
    assert torch.equal(model(input_ids=prompts, past_key_values=copy.deepcopy(first)).logits, expected)
    assert torch.equal(
        model.model(input_ids=prompts, past_key_values=copy.deepcopy(first))[0],
        model.model(input_ids=prompts, cache=copy.deepcopy(first))[0],
    )
    with pytest.raises(TypeError, match="cache"):
        model(input_ids=prompts, cache=first, past_key_values=copy.deepcopy(first))
    # from 5.24 on the library's own `generate` chooses between the names, and warns
    is_told = pytest.raises(TypeError, match="two caches") if CACHE_NAME != "cache" else pytest.warns(FutureWarning)
    with is_told:
        model.generate(prompts, cache=first, past_key_values=copy.deepcopy(first), max_new_tokens=1)
