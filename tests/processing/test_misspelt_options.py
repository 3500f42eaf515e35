"""Misspelt options of the processor's parts are told when they are made, and saved files still open."""

from pathlib import Path

import pytest
from transformers import AutoFeatureExtractor, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from mirasol_hf import MirasolFeatureExtractor, MirasolProcessor, MirasolVideoProcessor
from mirasol_hf.processing.keywords_mirasol import LOADING_KEYWORDS, refuse_misspelt, tokenizer_keywords


def test_misspelt_options_are_told():
    with pytest.raises(TypeError, match="MirasolVideoProcessor does not know the keyword num_frame"):
        MirasolVideoProcessor(num_frame=4)
    with pytest.raises(TypeError, match="MirasolFeatureExtractor does not know the keyword num_mels"):
        MirasolFeatureExtractor(num_mels=64)
    with pytest.raises(TypeError, match="prompt_templat"):
        MirasolProcessor(prompt_templat="{question}")


@pytest.mark.parametrize(
    ("loader", "misspelt", "meant"),
    [
        (MirasolProcessor, "num_frame", "num_frames"),
        (MirasolProcessor, "promt_template", "prompt_template"),
        (MirasolProcessor, "paddin_side", "padding_side"),
        (AutoProcessor, "num_step", "num_steps"),
        (AutoProcessor, "promt_template", "prompt_template"),
        (MirasolVideoProcessor, "num_frame", "num_frames"),
        (AutoVideoProcessor, "num_frame", "num_frames"),
        (MirasolFeatureExtractor, "num_step", "num_steps"),
        (AutoFeatureExtractor, "num_step", "num_steps"),
    ],
)
def test_misspelt_loading_options_are_told(random_folder: Path, loader: type, misspelt: str, meant: str):
    message = rf"Mirasol\w+ does not know the keyword {misspelt} \(did you mean {meant}\?\)"
    with pytest.raises(TypeError, match=message):
        loader.from_pretrained(random_folder, **{misspelt: 3})


@pytest.mark.parametrize("loader", [MirasolProcessor, AutoProcessor, MirasolVideoProcessor, MirasolFeatureExtractor])
def test_foreign_loading_options_are_told(random_folder: Path, loader: type):
    with pytest.raises(TypeError, match="does not know the keyword latitude"):
        loader.from_pretrained(random_folder, latitude=3)


def test_misspelt_options_of_dicts_and_calls_are_told(random_folder: Path):
    with pytest.raises(TypeError, match=r"num_frame \(did you mean num_frames\?\)"):
        MirasolVideoProcessor.from_dict({}, num_frame=3)
    with pytest.raises(TypeError, match=r"num_step \(did you mean num_steps\?\)"):
        MirasolFeatureExtractor.from_dict({}, num_step=3)
    assert MirasolFeatureExtractor.from_dict({}, num_steps=3).num_steps == 3
    with pytest.raises(TypeError, match=r"sampling_rat \(did you mean sampling_rate\?\)"):
        MirasolFeatureExtractor()([0.0] * 16_000, sampling_rat=16_000)
    assert MirasolVideoProcessor.from_dict({}, num_frame=3, return_unused_kwargs=True)[1] == {"num_frame": 3}


def test_options_reach_the_part_they_are_for(random_folder: Path, tmp_path: Path):
    of_the_library = {"cache_dir": tmp_path, "local_files_only": True, "trust_remote_code": False, "use_fast": True}
    options = {"num_chunks": 5, "mel_floor": 1e-6, "padding_side": "right", "prompt_template": "Q: {question}\nA:"}
    for loader in (MirasolProcessor, AutoProcessor):
        processor = loader.from_pretrained(random_folder, **options, **of_the_library)
        assert processor.video_processor.num_chunks == 5
        assert processor.feature_extractor.mel_floor == 1e-6
        assert processor.tokenizer.padding_side == "right"
        assert processor.prompt_template == "Q: {question}\nA:"
    # a pipeline hands over the options of its model
    AutoProcessor.from_pretrained(random_folder, _from_pipeline="any", attn_implementation="eager", latitude=3)


def test_no_option_is_another_part_misspelt(random_folder: Path):
    processor = MirasolProcessor.from_pretrained(random_folder)
    video = set(MirasolVideoProcessor.valid_kwargs.__annotations__)
    sound = MirasolFeatureExtractor.option_names()
    others = LOADING_KEYWORDS | tokenizer_keywords(type(processor.tokenizer)) | {"prompt_template"}
    refuse_misspelt("video", sound | others, video)
    refuse_misspelt("sound", video | others, sound)


def test_saved_parts_open_again(random_folder: Path, tmp_path: Path):
    processor = MirasolProcessor.from_pretrained(random_folder)
    for part in (processor, processor.video_processor, processor.feature_extractor):
        part.save_pretrained(tmp_path / type(part).__name__)
        again = type(part).from_pretrained(tmp_path / type(part).__name__)
        assert again.to_dict() == type(part).from_pretrained(tmp_path / type(part).__name__).to_dict()
    video = MirasolVideoProcessor.from_pretrained(tmp_path / "MirasolVideoProcessor", num_frames=4)
    assert video.num_frames == 4 and video.size == processor.video_processor.size
