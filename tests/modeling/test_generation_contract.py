"""What the library's common generation tests ask of any model, beside what `test_generate_modes` holds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import CompileConfig, DynamicCache, GenerationMixin, StaticCache
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

from mirasol_hf.modeling.text_cache_mirasol import CACHE_NAME
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]
STEPS, LENGTH = 5, 6
PLAIN: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": -1, "pad_token_id": -1}
ALL_OUTPUTS: dict[str, Any] = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
    "output_attentions": True,
    "output_hidden_states": True,
}


def assert_shapes(output: Any, rows: int, use_cache: bool = True, cache_length: int | None = None) -> None:
    """One entry a token: scores and logits [rows, V], attentions and hidden states of what the step read."""
    assert output.sequences.shape == (rows, LENGTH + STEPS)
    for scores in (output.scores, output.logits):
        assert [tuple(step.shape) for step in scores] == [(rows, 64)] * STEPS
    for step in range(STEPS):
        read = LENGTH + step
        queries = read if step == 0 or not use_cache else 1
        keys = read if cache_length is None else cache_length
        assert [tuple(layer.shape) for layer in output.attentions[step]] == [(rows, 2, queries, keys)] * 2
        assert [tuple(layer.shape) for layer in output.hidden_states[step]] == [(rows, queries, 24)] * 3


def test_class_and_flags(model: Any) -> None:
    assert isinstance(model, GenerationMixin) and "GenerationMixin" in str(type(model).__bases__)
    assert model.can_generate() and type(model)._can_compile_fullgraph and not model.config.is_encoder_decoder
    assert model._supports_default_dynamic_cache() and model._supports_logits_to_keep()


def test_prepared_inputs_forward_what_they_do_not_know(model: Any, prompts: torch.Tensor) -> None:
    given = {"output_attentions": True, "custom_arg": "value", "numeric_arg": 42}
    prepared = model.prepare_inputs_for_generation(prompts, **given)
    assert torch.equal(prepared["input_ids"], prompts)
    assert {name: prepared[name] for name in given} == given


@pytest.mark.parametrize(
    "options, kind",
    [
        ({}, GenerateDecoderOnlyOutput),
        ({"use_cache": False}, GenerateDecoderOnlyOutput),
        ({"do_sample": True, "num_return_sequences": 2}, GenerateDecoderOnlyOutput),
        ({"num_beams": 3, "num_return_sequences": 3}, GenerateBeamDecoderOnlyOutput),
        ({"num_beams": 2, "num_return_sequences": 2, "do_sample": True}, GenerateBeamDecoderOnlyOutput),
        ({"cache_implementation": "static"}, GenerateDecoderOnlyOutput),
    ],
)
def test_outputs_of_every_step(model: Any, media: Media, prompts: torch.Tensor, options: Any, kind: type) -> None:
    model.set_attn_implementation("eager")
    output = model.generate(prompts, **media(2, 3), **{**PLAIN, **options}, **ALL_OUTPUTS)
    assert isinstance(output, kind)
    static = LENGTH + STEPS - 1 if "cache_implementation" in options else None
    assert_shapes(output, 2 * options.get("num_return_sequences", 1), options.get("use_cache", True), static)
    assert (output.get(CACHE_NAME) is None) == (options.get("use_cache") is False)


@pytest.mark.parametrize("way", ["drafter", "lookup"])
def test_outputs_of_speculative_decoding(model: Any, media: Media, prompts: torch.Tensor, way: str) -> None:
    model.set_attn_implementation("eager")
    options: dict[str, Any] = {"prompt_lookup_num_tokens": 2}
    if way == "drafter":
        options = {"assistant_model": build(text_config={"num_hidden_layers": 1})}
    output = model.generate(prompts[:1], **media(1, 3), **PLAIN, **ALL_OUTPUTS, **options)
    plain = model.generate(prompts[:1], **media(1, 3), **PLAIN, **ALL_OUTPUTS)
    assert_shapes(output, 1)
    assert torch.equal(output.sequences, plain.sequences)
    for ours, theirs in zip(output.scores, plain.scores, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_left_padding_of_forward(model: Any, media: Media, prompts: torch.Tensor) -> None:
    padded = torch.cat((torch.zeros(2, 32, dtype=torch.long), prompts), dim=1)
    mask = (torch.arange(38) >= 32).long().expand(2, -1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = model(input_ids=prompts, **media(2, 3)).logits[:, -1]
    actual = model(input_ids=padded, attention_mask=mask, position_ids=positions, **media(2, 3)).logits[:, -1]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_media_again", [True, False])
def test_continuing_from_a_cache(model: Any, media: Media, prompts: torch.Tensor, with_media_again: bool) -> None:
    batch, mask = media(2, 3), torch.ones_like(prompts)
    options = {**PLAIN, "return_dict_in_generate": True, "output_scores": True}
    whole = model.generate(prompts, attention_mask=mask, **batch, **options)
    first = model.generate(prompts, attention_mask=mask, **batch, **{**options, "max_new_tokens": STEPS - 1})
    rest = model.generate(
        first.sequences,
        attention_mask=torch.ones_like(first.sequences),
        cache=first[CACHE_NAME],
        **(batch if with_media_again else {}),
        **{**options, "max_new_tokens": 1},
    )
    assert torch.equal(rest.sequences, whole.sequences)
    for ours, theirs in zip(first.scores + rest.scores, whole.scores, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(rest[CACHE_NAME].layers, whole[CACHE_NAME].layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.values, theirs.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_static_cache_in_every_precision(media: Media, prompts: torch.Tensor, dtype: torch.dtype) -> None:
    model = build().to(dtype)
    batch = {name: value.to(dtype) if value.is_floating_point() else value for name, value in media(2, 3).items()}
    options = {**PLAIN, "return_dict_in_generate": True, "output_scores": True}
    static = model.generate(prompts, **batch, **options, cache_implementation="static")
    dynamic = model.generate(prompts, **batch, **options)
    assert isinstance(static[CACHE_NAME], StaticCache) and isinstance(dynamic[CACHE_NAME], DynamicCache)
    assert [tuple(layer.keys.shape) for layer in static[CACHE_NAME].layers] == [(2, 1, LENGTH + STEPS - 1, 12)] * 2
    same = (static.sequences == dynamic.sequences).all(dim=1)
    assert same.all() or dtype != torch.float32
    torch.testing.assert_close(static.scores[0], dynamic.scores[0], atol=0.1, rtol=0.02)


def test_embeds_into_a_static_cache(model: Any, media: Media, prompts: torch.Tensor) -> None:
    embeds = model.get_input_embeddings()(prompts)
    options = {**PLAIN, "return_dict_in_generate": True, "cache_implementation": "static"}
    output = model.generate(inputs_embeds=embeds, **media(2, 3), **options)
    assert output.sequences.shape == (2, STEPS)
    assert [layer.keys.shape[2] for layer in output[CACHE_NAME].layers] == [LENGTH + STEPS - 1] * 2
    random = model.generate(prompts, inputs_embeds=torch.rand_like(embeds), **media(2, 3), **PLAIN, **ALL_OUTPUTS)
    plain = model.generate(prompts, **media(2, 3), **PLAIN, **ALL_OUTPUTS)
    assert not torch.allclose(random.scores[0], plain.scores[0])


def test_all_outputs_under_compilation(model: Any, media: Media, prompts: torch.Tensor) -> None:
    model.set_attn_implementation("eager")
    torch.compiler.reset()
    config = CompileConfig(fullgraph=True, dynamic=False, backend="eager", mode=None)
    config._compile_all_devices = True
    options = {**PLAIN, **ALL_OUTPUTS, "cache_implementation": "static"}
    output = model.generate(prompts, **media(2, 3), **options, compile_config=config)
    assert hasattr(model, "_compiled_call")
    assert_shapes(output, 2, cache_length=LENGTH + STEPS - 1)
    plain = model.generate(prompts, **media(2, 3), **options)
    for step in range(STEPS):
        torch.testing.assert_close(output.attentions[step][1], plain.attentions[step][1], atol=1e-5, rtol=1e-5)


def test_a_default_cache_is_not_compiled_for(model: Any, media: Media, prompts: torch.Tensor) -> None:
    config = CompileConfig(backend="eager", mode=None)
    config._compile_all_devices = True
    output = model.generate(prompts, **media(2, 3), **PLAIN, compile_config=config, return_dict_in_generate=True)
    assert isinstance(output[CACHE_NAME], DynamicCache) and not output[CACHE_NAME].is_compileable
    assert not hasattr(model, "_compiled_call")
