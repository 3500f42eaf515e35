"""Text against media: the cache, padding, several questions on one clip, and generate() encoding media once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mirasol_hf.modeling.text_cache_mirasol import CACHE_NAME
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]


def count_encodings(model: Any) -> list[int]:
    """Numbers of chunks that went through the video tower, one entry a call."""
    calls: list[int] = []
    model.model.video_tower.register_forward_hook(lambda _, args, out: calls.append(out.last_hidden_state.shape[0]))
    return calls


def greedy_without_cache(model: Any, input_ids: torch.Tensor, steps: int, **kwargs: Any) -> torch.Tensor:
    """Greedy decoding written out: the whole sequence through forward for every token."""
    for _ in range(steps):
        logits = model(input_ids=input_ids, use_cache=False, **kwargs).logits
        input_ids = torch.cat((input_ids, logits[:, -1:].argmax(-1)), dim=1)
    return input_ids


@torch.no_grad()
def test_generate_equals_uncached_decoding(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    batch["audio_mask"][1, 1:] = batch["video_mask"][1, 1:] = 0
    generated = model.generate(prompts, **batch, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert torch.equal(generated, greedy_without_cache(model, prompts, 8, **batch))


@torch.no_grad()
def test_cached_logits_equal_uncached(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    expected = model(input_ids=prompts, **batch).logits
    first = model(input_ids=prompts[:, :4], **batch, use_cache=True)
    rest = model(input_ids=prompts[:, 4:], cache=first[CACHE_NAME])
    torch.testing.assert_close(torch.cat((first.logits, rest.logits), dim=1), expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_media_are_encoded_once(model: Any, media: Media, prompts: torch.Tensor, options: dict[str, Any]) -> None:
    calls = count_encodings(model)
    model.generate(prompts, **media(2, 3), max_new_tokens=4, do_sample=False, **options)
    assert calls == [6]


@torch.no_grad()
def test_a_second_question_costs_no_second_encoding(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    expected = model.generate(prompts, **batch, max_new_tokens=4, num_beams=2)
    encoded = model.encode_media(**batch)
    calls = count_encodings(model)
    memory = {name: encoded[name] for name in ("media_hidden_states", "media_attention_mask")}
    assert torch.equal(model.generate(prompts, **memory, max_new_tokens=4, num_beams=2), expected)
    model.generate(prompts.flip(1), **memory, max_new_tokens=4)
    assert calls == []


@torch.no_grad()
def test_beams_see_their_own_clip(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    together = model.generate(prompts, **batch, max_new_tokens=5, num_beams=3, eos_token_id=None)
    for row in range(2):
        single = {name: value[row : row + 1] for name, value in batch.items()}
        alone = model.generate(prompts[row : row + 1], **single, max_new_tokens=5, num_beams=3, eos_token_id=None)
        assert torch.equal(together[row : row + 1], alone)


@torch.no_grad()
def test_left_padding_changes_nothing(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    padded = torch.cat((torch.zeros(2, 3, dtype=torch.long), prompts), dim=1)
    mask = (torch.arange(9) >= 3).long().expand(2, -1)
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected = model.generate(prompts, **batch, **options)
    assert torch.equal(model.generate(padded, attention_mask=mask, **batch, **options)[:, 3:], expected)
    logits = model(input_ids=padded, attention_mask=mask, **batch).logits[:, 3:]
    torch.testing.assert_close(logits, model(input_ids=prompts, **batch).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_media_index_asks_several_questions_of_one_clip(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(2, 3)
    index = torch.tensor([1, 0, 1])
    questions = torch.cat((prompts, prompts.flip(1)[:1]))
    repeated = {name: value[index] for name, value in batch.items()}
    expected = model(input_ids=questions, **repeated).logits
    actual = model(input_ids=questions, **batch, media_index=index).logits
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    generated = model.generate(questions, **batch, media_index=index, **options)
    assert torch.equal(generated, model.generate(questions, **repeated, **options))
    with pytest.raises(ValueError, match=r"input_ids holds 3 rows but the media 2 clips.*media_index"):
        model(input_ids=questions, **batch)


@torch.no_grad()
def test_packed_questions_do_not_see_each_other(model: Any, media: Media, prompts: torch.Tensor) -> None:
    batch = media(1, 3)
    expected = [model(input_ids=row[None], **batch).logits for row in prompts]
    positions = torch.arange(6).repeat(2)[None]
    packed = model(
        input_ids=prompts.flatten()[None], position_ids=positions, labels=prompts.flatten()[None], **batch
    ).logits
    torch.testing.assert_close(packed, torch.cat(expected, dim=1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_text_only_and_media_only_one_row_has(model: Any, media: Media, prompts: torch.Tensor) -> None:
    assert model.generate(prompts, max_new_tokens=3).shape[0] == 2
    batch = media(2, 3)
    batch["video_mask"][1] = batch["audio_mask"][1] = 0
    mixed = model(input_ids=prompts, **batch).logits
    text_only = model(input_ids=prompts).logits
    torch.testing.assert_close(mixed[1], text_only[1], atol=1e-5, rtol=0)
    assert (mixed[0] - text_only[0]).abs().max() > 1e-2
    nothing = {**batch, "video_mask": torch.zeros(2, 3), "audio_mask": torch.zeros(2, 3)}
    torch.testing.assert_close(model(input_ids=prompts, **nothing).logits, text_only, atol=1e-5, rtol=0)


@torch.no_grad()
def test_media_reach_the_logits_through_gate_and_stride(media: Media, prompts: torch.Tensor) -> None:
    gated = build(text_config={"cross_attention_gate": True, "cross_attention_every": 2})
    assert [layer.has_cross_attention for layer in gated.model.language_model.layers] == [False, True]
    batch = media(2, 3)
    closed = gated(input_ids=prompts, **batch).logits
    torch.testing.assert_close(closed, gated(input_ids=prompts).logits)
    gated.model.language_model.layers[1].cross_attn_gate.fill_(1.0)
    assert (gated(input_ids=prompts, **batch).logits - closed).abs().max() > 1e-2


def test_too_long_text_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"65 tokens.*max_position_embeddings allows 64"):
        model(input_ids=torch.ones(1, 65, dtype=torch.long))


def test_attentions_and_hidden_states_are_returned(model: Any, media: Media, prompts: torch.Tensor) -> None:
    model.set_attn_implementation("eager")
    outputs = model(input_ids=prompts, **media(2, 3), output_attentions=True, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    assert [weights.shape for weights in outputs.attentions] == [(2, 2, 6, 6)] * 2
    assert [weights.shape for weights in outputs.cross_attentions] == [(2, 2, 6, 9)] * 2
