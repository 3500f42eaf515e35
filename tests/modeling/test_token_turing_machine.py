"""The Token Turing Machine and the Combiner built on it: first values, masks, positions, saving, bad sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mirasol_hf.conversion.token_turing_machine import key_table
from mirasol_hf.modeling.configuration_mirasol import MirasolAudioConfig, MirasolCombinerConfig, MirasolVideoConfig
from mirasol_hf.modeling.media_cache_mirasol import MirasolMediaCache
from mirasol_hf.modeling.memory_combiner_mirasol import MirasolMemoryCombiner, video_token_slots
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from mirasol_hf.modeling.token_turing_machine_mirasol import MirasolTokenTuringMachine
from tests.modeling.small_models import SMALL, build, small_config

Media = Callable[..., dict[str, torch.Tensor]]
OFFICIAL = json.loads((Path(__file__).parents[1] / "golden/ttm/official_init_stats_c768.json").read_text())
MODES = {"TL": "tl", "TL-MHA": "tl_mha", "TL-AddErase": "tl_add_erase"}
SMALL_COMBINER = {**SMALL["combiner_config"], "type": "ttm"}


def ttm(**fields: Any) -> Any:
    return build(combiner_config={"type": "ttm", **fields})


def small_machine(**fields: Any) -> MirasolTokenTuringMachine:
    torch.manual_seed(0)
    config = MirasolCombinerConfig(**{**SMALL_COMBINER, "attn_implementation": "sdpa", **fields})
    return MirasolTokenTuringMachine(config, num_input_tokens=5).eval()


@pytest.mark.parametrize("case", OFFICIAL)
def test_first_values_follow_the_official_statistics(case: str) -> None:
    mode, unit = case.split("/")
    torch.manual_seed(0)
    config = MirasolCombinerConfig(
        type="ttm",
        memory_mode=MODES[mode],
        processing_unit=unit,
        memory_size=64,
        num_output_tokens=8,
        hidden_size=768,
        intermediate_size=512,
        num_hidden_layers=1,
        num_attention_heads=12,
        use_positional_embedding=True,
        initializer_range=0.3,  # must not matter
    )
    # 2·2 video tokens and 12·1 audio tokens: the 16 input tokens of the official run
    video = MirasolVideoConfig(
        image_size=16, num_frames=1, tube_kernels=[[1, 8, 8]], tube_strides=[[1, 8, 8]], tube_offsets=[[0, 0, 0]]
    )
    audio = MirasolAudioConfig(num_steps=192, num_mel_bins=16)
    tensors = MirasolMemoryCombiner(config, video, audio).machine.state_dict()
    table = key_table(config)
    assert {key.flax for key in table} == set(OFFICIAL[case])
    for key in table:
        official, tensor = OFFICIAL[case][key.flax], tensors[key.torch]
        assert tensor.numel() == torch.tensor(official["shape"]).prod(), key
        deviation = tensor.std(correction=0).item()
        noise = 5 / tensor.numel() ** 0.5  # of two samples, in units of the standard deviation
        assert deviation == pytest.approx(official["std"], rel=max(noise, 1e-3), abs=1e-12), key
        assert tensor.mean().item() == pytest.approx(official["mean"], abs=noise * official["std"] + 1e-9), key
        if deviation > 1e-3 and tensor.numel() > 1000 and "pos" not in key.flax and "tokens" not in key.flax:
            # bounded distributions reach their bounds
            assert tensor.max().item() == pytest.approx(official["max"], rel=0.02), key


@torch.no_grad()
@pytest.mark.parametrize("memory_mode", MODES.values())
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_masked_inputs_do_not_enter(memory_mode: str, implementation: str) -> None:
    machine = small_machine(memory_mode=memory_mode, attn_implementation=implementation)
    memory, inputs = torch.randn(2, 4, 24), torch.randn(2, 5, 24)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]])
    expected = machine.step(memory, inputs[:, :2])
    inputs[:, 2:] = 1e4
    for actual, wanted in zip(machine.step(memory, inputs, mask), expected, strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
@torch.no_grad()
@pytest.mark.parametrize("memory_mode", ["tl", "tl_mha", "tl_add_erase"])
def test_its_work_can_be_counted(memory_mode: str) -> None:
    machine = small_machine(memory_mode=memory_mode)
    memory, inputs = torch.zeros(1, 4, 24), torch.zeros(1, 5, 24)
    with FlopCounterMode(display=False) as counter:
        machine.step(memory, inputs)
    assert counter.get_total_flops() > 0


def test_add_erase_keeps_one_vector_from_zeros() -> None:
    machine = small_machine(memory_mode="tl_add_erase")
    inputs = torch.randn(2, 6, 5, 24)
    memory = machine.initial_memory(inputs)
    for step in range(6):
        _, memory = machine.step(memory, inputs[:, step])
    assert torch.equal(memory, memory[:, :1].expand_as(memory))
    assert memory.abs().max() > 1


def test_wrong_step_shapes_are_named() -> None:
    machine = small_machine(use_positional_embedding=True)
    memory, inputs = torch.zeros(2, 4, 24), torch.zeros(2, 5, 24)
    with pytest.raises(ValueError, match=r"memory \(2, 3, 24\).*\[B, 4, 24\]"):
        machine.step(memory[:, :3], inputs)
    with pytest.raises(ValueError, match=r"4 tokens.*use_positional_embedding.*5"):
        machine.step(memory, inputs[:, :4])
    with pytest.raises(ValueError, match=r"input_mask \(2, 4\)"):
        machine.step(memory, inputs, torch.ones(2, 4))
    with pytest.raises(ValueError, match="num_input_tokens"):
        MirasolTokenTuringMachine(machine.config)


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"memory_mode": "tl_mha"}, {"use_positional_embedding": True}])
def test_padded_chunks_leave_the_memory_untouched(media: Media, fields: dict[str, Any]) -> None:
    model, batch = ttm(**fields), media(2, 3)
    batch["video_mask"][1, 1:] = batch["audio_mask"][1, 1:] = 0
    cache, one = MirasolMediaCache(), MirasolMediaCache()
    model.encode_media(**batch, media_cache=cache)
    model.encode_media(**{name: value[1:, :1] for name, value in batch.items()}, media_cache=one)
    assert cache.memory.memory is not None and one.memory.memory is not None
    torch.testing.assert_close(cache.memory.memory[1:], one.memory.memory, atol=1e-6, rtol=0)
    before = cache.memory.memory
    nothing = {"video_mask": torch.zeros(2, 3), "audio_mask": torch.zeros(2, 3)}
    model.encode_media(**{**batch, **nothing}, media_cache=cache)
    assert torch.equal(cache.memory.memory, before)


@torch.no_grad()
def test_the_state_has_one_size(media: Media) -> None:
    model, cache = build(combiner_config={"type": "ttm"}, time_config={"attention_window": 2}), MirasolMediaCache()
    batch = media(1, 6)
    for chunk in range(6):
        part = {name: value[:, chunk : chunk + 1] for name, value in batch.items()}
        model.encode_media(**part, media_cache=cache)
        assert cache.memory.memory is not None and cache.memory.memory.shape == (1, 4, 24)
    assert cache.combiner.num_tokens == 0 and cache.time_model.num_tokens == 3
    with pytest.raises(ValueError, match="holds 1 clips, the new chunks 2"):
        model.encode_media(**media(2, 1), media_cache=cache)
    cache.reset()
    assert cache.memory.memory is None


@torch.no_grad()
def test_earlier_chunks_reach_later_ones_through_the_memory(media: Media) -> None:
    model, batch = ttm(), media(1, 4)
    expected = model.encode_media(**batch).combined_features
    batch["pixel_values_videos"][:, 0] += 3
    moved = (model.encode_media(**batch).combined_features - expected).abs().amax(dim=(0, 2, 3))
    assert moved.min() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"use_positional_embedding": True}])
def test_an_absent_modality_equals_its_empty_mask(media: Media, fields: dict[str, Any]) -> None:
    model, batch = ttm(**fields), media(2, 3)
    for kept, masked in (("pixel_values_videos", "audio_mask"), ("input_features", "video_mask")):
        expected = model.encode_media(**{kept: batch[kept]}).media_hidden_states
        # in one clip only: the other one has both
        mask = torch.tensor([[0, 0, 0], [1, 1, 1]])
        actual = model.encode_media(**{**batch, masked: mask}).media_hidden_states
        torch.testing.assert_close(actual[:1], expected[:1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_image_takes_the_first_places_of_each_tube(media: Media) -> None:
    config = small_config().video_config
    assert video_token_slots(config, 4) == list(range(12))
    assert video_token_slots(config, 1) == [0, 1, 2, 3]  # of 2·2·2 patches those of time 0; the long tube has none
    image = media(2, 1)["pixel_values_videos"][:, :, :1]
    output = ttm(use_positional_embedding=True).encode_media(pixel_values_videos=image)
    assert output.media_hidden_states.shape == (2, 3, 24)


@pytest.mark.parametrize("memory_mode", MODES.values())
@pytest.mark.parametrize("processing_unit", ["transformer", "mixer", "mlp"])
def test_every_parameter_learns(media: Media, prompts: torch.Tensor, memory_mode: str, processing_unit: str) -> None:
    model = ttm(memory_mode=memory_mode, processing_unit=processing_unit, use_positional_embedding=True).train()
    model(input_ids=prompts, labels=prompts, **media()).loss.backward()
    idle = [name for name, value in model.model.combiner.named_parameters() if value.grad is None]
    assert not idle
    assert all(value.grad.isfinite().all() for value in model.model.combiner.parameters())


@torch.no_grad()
@pytest.mark.parametrize("memory_mode", MODES.values())
def test_saved_and_loaded(tmp_path: Path, media: Media, prompts: torch.Tensor, memory_mode: str) -> None:
    model = ttm(memory_mode=memory_mode, use_positional_embedding=True)
    expected = model(input_ids=prompts, **media()).logits
    model.save_pretrained(tmp_path)
    loaded = MirasolForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=prompts, **media()).logits, expected)


def test_what_a_checkpoint_lacks_gets_its_first_values(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)  # of a Transformer Combiner
    fields = {"type": "ttm", "memory_mode": "tl_mha", "use_positional_embedding": True}
    loaded, report = MirasolForConditionalGeneration.from_pretrained(
        tmp_path, combiner_config=fields, output_loading_info=True
    )
    assert report["missing_keys"] and all(key.startswith("model.combiner.") for key in report["missing_keys"])
    machine = loaded.model.combiner.machine
    assert machine.read_positions.std().item() == pytest.approx(0.02, rel=0.2)
    assert machine.write.queries.std().item() == pytest.approx(0.02, rel=0.4)
    bound = 2 * (1 / 24) ** 0.5 / 0.8796
    assert 0.8 * bound < machine.read.q_proj.weight.abs().max() <= bound + 1e-6
    assert machine.read.q_proj.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"memory_size": 2}, ("memory_size=2", "num_output_tokens=3")),
        ({"memory_mode": "pool"}, ("memory_mode='pool'", "tl_mha")),
        ({"processing_unit": "rnn"}, ("processing_unit='rnn'", "mixer")),
        ({"hidden_size": 12, "memory_mode": "tl_mha"}, ("hidden_size=12", "memory_mode")),
        ({"hidden_size": 25}, ("hidden_size=25", "num_attention_heads=2")),
        ({"context": "causal", "context_chunks": 2}, ("context_chunks=2", "type")),
    ],
)
def test_bad_sizes_name_both_fields(fields: dict[str, Any], names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        small_config(combiner_config={"type": "ttm", **fields})
    assert all(name in str(error.value) for name in names), error.value


def test_output_tokens_mean_nothing_to_a_memory() -> None:
    config = small_config(combiner_config={"type": "ttm", "output_tokens": "last"})
    assert config.combiner_config.num_output_tokens == 3
    assert ttm(output_tokens="learned").model.combiner.embeddings.output_tokens is None
