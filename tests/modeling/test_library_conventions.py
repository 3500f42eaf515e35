"""What tools of the library rely on: sizes in the whole configuration, foreign attributes, scaled rotary positions."""

import pytest
import torch
from transformers import AutoModel

from mirasol_hf import MirasolConfig
from mirasol_hf.modeling.attention_mirasol import MirasolRotaryEmbedding, rotate
from mirasol_hf.modeling.configuration_mirasol import MirasolTextConfig
from tests.modeling.small_models import build, small_config


def test_attributes_that_are_no_fields_are_not_written(tmp_path):
    config = small_config()
    config.video_config.norm_epsilon = 1.0
    config.note = "set by a tool"
    config.save_pretrained(tmp_path)
    saved = MirasolConfig.from_pretrained(tmp_path)
    assert saved.to_dict() == small_config().to_dict()
    assert config.note == "set by a tool"
    with pytest.raises(ValueError, match="no field 'note'"):
        MirasolConfig(note="x")


def test_sizes_of_the_text_decoder_through_the_whole_configuration():
    config = small_config()
    assert (config.vocab_size, config.hidden_size, config.num_key_value_heads) == (64, 24, 1)
    assert config.num_hidden_layers == 2
    config.vocab_size = 80
    assert config.text_config.vocab_size == 80
    assert "vocab_size" not in config.to_dict()


@pytest.mark.parametrize("rope_type", ["linear", "dynamic", "yarn"])
def test_scaled_positions_reach_beyond_the_trained_length(rope_type):
    text = torch.arange(64).repeat(2)[None, :100] % 64
    plain = build()
    scaled = build(text_config={"rope_parameters": {"rope_type": rope_type, "rope_theta": 10_000.0, "factor": 4.0}})
    scaled.load_state_dict(plain.state_dict())
    assert scaled(input_ids=text).logits.shape == (1, 100, 64)
    with pytest.raises(ValueError, match="100 tokens"):
        plain(input_ids=text)


def test_linear_scaling_divides_the_positions():
    rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4}
    plain, scaled = (
        MirasolRotaryEmbedding(MirasolTextConfig(**sizes, rope_parameters=parameters)) for parameters in (None, rope)
    )
    positions = torch.arange(8)[None]
    like = torch.zeros(1, 8, 32)
    for short, long in zip(plain(like, positions), scaled(like, 4 * positions), strict=True):
        torch.testing.assert_close(short, long)


def test_partial_rotation_leaves_the_other_channels_alone():
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    config = MirasolTextConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=4, rope_parameters=rope)
    states = torch.randn(1, 4, 6, 8)
    turned = rotate(states, MirasolRotaryEmbedding(config)(states, torch.arange(6)[None]))
    assert torch.equal(turned[..., 4:], states[..., 4:])
    assert not torch.allclose(turned[:, :, 1:, :4], states[:, :, 1:, :4])
    torch.testing.assert_close(turned.norm(dim=-1), states.norm(dim=-1))


def test_sections_give_their_models():
    config = small_config()
    for name in ("video_config", "audio_config", "text_config"):
        model = AutoModel.from_config(getattr(config, name))
        assert type(model.config) is type(getattr(config, name))
        assert model.get_input_embeddings() is not None


def test_parameters_that_data_parallel_training_shards_by_layer():
    model = build()
    names = [name for name in model.fsdp_plan if name.endswith("layers.*")]
    parts = ("video_tower", "audio_tower", "combiner", "time_model", "language_model")
    assert sorted(names) == sorted(f"model.{part}.layers.*" for part in parts)
