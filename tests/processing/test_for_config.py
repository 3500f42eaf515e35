"""From the name of a size to a processor and a model that go together."""

from typing import Any

import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

import mirasol_hf
from mirasol_hf import MirasolConfig, MirasolForConditionalGeneration, MirasolProcessor
from mirasol_hf.pipelines.video_question_answering_mirasol import check_geometry
from mirasol_hf.training.tokenizer import train_tokenizer
from tests.modeling.preset_twins import twin_config

PRESETS = ("tiny", "base", "3b")
TEXTS = ["which shape is shown first ?", "a square", "what is heard at the end ?", "a high tone"]


def trained(config: Any) -> PreTrainedTokenizerFast:
    text = config.text_config
    return train_tokenizer(TEXTS, vocab_size=text.vocab_size, model_max_length=text.max_position_embeddings)


@pytest.mark.parametrize("preset", PRESETS)
def test_128_frames_in_16_chunks(preset: str) -> None:
    config = MirasolConfig.from_preset(preset)
    processor = MirasolProcessor.for_config(config, trained(config))
    check_geometry(processor, config)
    inputs = processor(text="what is heard ?", videos=mirasol_hf.SAMPLE_CLIP, return_tensors="pt")
    video, audio = config.video_config, config.audio_config
    side = video.image_size
    assert inputs["pixel_values_videos"].shape == (1, 16, 8, video.num_channels, side, side)
    assert inputs["input_features"].shape == (1, 16, audio.num_steps, audio.num_mel_bins)
    assert inputs["video_mask"].all() and inputs["audio_mask"].all()


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_from_a_preset_to_an_answer(preset: str, sound: bool, tmp_path: Any) -> None:
    """The presets' small twins read the sample clip and answer, also with a processor that was saved and loaded."""
    config = twin_config(preset, text_config={"vocab_size": 300}, **({} if sound else {"audio_config": None}))
    MirasolProcessor.for_config(config, trained(config), num_chunks=3).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    torch.manual_seed(0)
    model = MirasolForConditionalGeneration(config).eval()
    assert processor.reads_sound == sound
    inputs = processor(text="What is heard?", videos=mirasol_hf.SAMPLE_CLIP, return_tensors="pt")
    assert ("input_features" in inputs) == sound
    assert next(processor.iter_chunks(mirasol_hf.SAMPLE_CLIP)).keys() >= {"pixel_values_videos"}
    assert model(**inputs).media_hidden_states.shape[1] == 3 * config.combiner_config.num_output_tokens
    tokens = model.generate(**inputs, max_new_tokens=4)
    assert processor.batch_decode(tokens)[0].startswith("<bos>what is heard?\n")
    ids = {name: getattr(processor.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    assert ids == {name: getattr(model.generation_config, name) for name in ids}


def test_the_vocabulary_of_another_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(mirasol_hf.EMBEDDED_MODEL)
    tokenizer.add_tokens(["<one more>"])
    tokenizer.eos_token = "<pad>"
    config = MirasolConfig.from_preset("base")
    with pytest.raises(ValueError, match=r"eos_token_id is 0, but text_config\.eos_token_id is 2"):
        MirasolProcessor.for_config(config, tokenizer)
    fields: dict[str, Any] = {"vocab_size": len(tokenizer) - 1, "eos_token_id": [2, 0], "bos_token_id": None}
    with pytest.raises(ValueError, match=f"{len(tokenizer)} entries, but"):
        MirasolProcessor.for_config(MirasolConfig.from_preset("base", text_config=fields), tokenizer)
    fields["vocab_size"] = len(tokenizer)
    with pytest.raises(ValueError, match=r"bos_token_id is 1, but text_config\.bos_token_id is None"):
        MirasolProcessor.for_config(MirasolConfig.from_preset("base", text_config=fields), tokenizer)
    tokenizer.bos_token = None
    MirasolProcessor.for_config(MirasolConfig.from_preset("base", text_config=fields), tokenizer)


def test_options_of_every_part() -> None:
    config = MirasolConfig.from_preset("tiny")
    processor = MirasolProcessor.for_config(
        config, trained(config), prompt_template="{question} ", image_mean=[0.1, 0.2, 0.3], db_offset=30.0
    )
    assert processor.prompt_template == "{question} " and processor.reads_sound
    assert list(processor.video_processor.image_mean) == [0.1, 0.2, 0.3]
    assert processor.feature_extractor.db_offset == 30.0 and processor.feature_extractor.num_mel_bins == 64
    with pytest.raises(TypeError, match="db_ofset"):
        MirasolProcessor.for_config(config, trained(config), db_ofset=30.0)


def test_a_bare_processor_says_what_to_do(processor: MirasolProcessor) -> None:
    with pytest.raises(TypeError, match=r"lacks video_processor, feature_extractor, tokenizer; .*for_config\("):
        MirasolProcessor()
    with pytest.raises(TypeError, match=r"lacks tokenizer; .*from_pretrained\(folder\)"):
        MirasolProcessor(processor.video_processor, processor.feature_extractor)
