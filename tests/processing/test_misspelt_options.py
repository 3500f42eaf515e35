"""Misspelt options of the processor's parts are told when they are made, and saved files still open."""

from pathlib import Path

import pytest

from mirasol_hf import MirasolFeatureExtractor, MirasolProcessor, MirasolVideoProcessor


def test_misspelt_options_are_told():
    with pytest.raises(TypeError, match="MirasolVideoProcessor does not know the keyword num_frame"):
        MirasolVideoProcessor(num_frame=4)
    with pytest.raises(TypeError, match="MirasolFeatureExtractor does not know the keyword num_mels"):
        MirasolFeatureExtractor(num_mels=64)
    with pytest.raises(TypeError, match="prompt_templat"):
        MirasolProcessor(prompt_templat="{question}")


def test_saved_parts_open_again(random_folder: Path, tmp_path: Path):
    processor = MirasolProcessor.from_pretrained(random_folder)
    for part in (processor, processor.video_processor, processor.feature_extractor):
        part.save_pretrained(tmp_path / type(part).__name__)
        again = type(part).from_pretrained(tmp_path / type(part).__name__)
        assert again.to_dict() == type(part).from_pretrained(tmp_path / type(part).__name__).to_dict()
    video = MirasolVideoProcessor.from_pretrained(tmp_path / "MirasolVideoProcessor", num_frames=4)
    assert video.num_frames == 4 and video.size == processor.video_processor.size
