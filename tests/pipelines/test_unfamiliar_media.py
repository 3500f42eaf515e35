"""What a model was trained on is told beside its answers, and a clip unlike that is told to be so."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForMultimodalLM, pipeline

import mirasol_hf
from mirasol_hf import MirasolConfig
from mirasol_hf.training.provenance import UNNAMED, note_training

QUESTION = "What animal is shown?"
RANGES = {"picture_background_share": [0.5, 1.0]}


@pytest.fixture(scope="module")
def embedded():
    return pipeline("video-question-answering", device="cpu")


def photographs(seconds: int = 4) -> torch.Tensor:
    """Frames in which no colour prevails, as in pictures of the world: uint8 [frames, 3, 48, 64]."""
    tilt = np.linspace(0, 255, 64)[None, :] * np.linspace(0.2, 1, 48)[:, None]
    noise = np.random.default_rng(0).integers(0, 60, (seconds * 4, 3, 48, 64))
    return torch.from_numpy(np.clip(tilt + noise, 0, 255).astype("uint8"))


def test_embedded_model_knows_its_own_clips_from_others(embedded, tmp_path):
    def told(*media, **options):
        [found] = embedded(*media, QUESTION, return_unfamiliar=True, **options)
        assert set(found) == {"answer", "score", "unfamiliar"}
        return [phrase.rsplit(" ", 6)[0] for phrase in found["unfamiliar"]]

    assert told(mirasol_hf.SAMPLE_CLIP) == []
    assert set(told(photographs(), fps=4)) == {"picture background share", "picture background brightness"}
    soundfile.write(tmp_path / "silence.wav", np.zeros(48_000), 16_000)
    assert set(told(str(tmp_path / "silence.wav"))) == {"sound background share", "sound background level"}
    assert told(None) == []
    assert set(embedded(mirasol_hf.SAMPLE_CLIP, QUESTION)[0]) == {"answer", "score"}


def test_pipeline_warns_once(embedded, scene_clip, other_clip, caplog):
    embedded.model.config.trained_on = "clips of this test"  # the library tells each text once a process
    try:
        with caplog.at_level(logging.WARNING, logger="mirasol_hf.pipelines"):
            for clip in (scene_clip, other_clip, scene_clip):
                embedded(str(clip), QUESTION)
        assert [record.getMessage() for record in caplog.records] == [embedded.trained_on()]
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="mirasol_hf.pipelines"):
            embedded(photographs() // 2, QUESTION, fps=4)  # other numbers than elsewhere here, so another text
        [record] = caplog.records
        assert "is unlike the clips of the training: picture background share" in record.getMessage()
    finally:
        embedded.model.config.trained_on = MirasolConfig.from_pretrained(mirasol_hf.EMBEDDED_MODEL).trained_on


def test_a_batch_tells_each_clip_by_itself(embedded):
    items = [{"video": photographs(), "fps": 4}, {"video": str(mirasol_hf.SAMPLE_CLIP)}]
    found = embedded([{**item, "question": QUESTION} for item in items], return_unfamiliar=True, batch_size=2)
    assert [bool(rows[0]["unfamiliar"]) for rows in found] == [True, False]


def test_traits_of_a_stream_are_those_of_the_clip(embedded):
    processor = embedded.processor
    options = {"start": 0.0, "end": 4.0}
    whole = processor.media_traits(
        processor(videos=str(mirasol_hf.SAMPLE_CLIP), num_chunks=4, return_tensors="pt", **options)
    )
    chunks = list(processor.iter_chunks(str(mirasol_hf.SAMPLE_CLIP), chunk_seconds=1.0, **options))
    for name, value in whole.items():
        assert value == pytest.approx(np.mean([processor.media_traits(chunk)[name] for chunk in chunks]), abs=0.01)


def test_config_keeps_and_checks_what_it_says(tmp_path):
    config = MirasolConfig.from_preset("tiny", trained_on="films", media_ranges=RANGES)
    config.save_pretrained(tmp_path)
    again = MirasolConfig.from_pretrained(tmp_path)
    assert (again.trained_on, again.media_ranges) == ("films", RANGES)
    for bounds in ([1.0], [2, 1], [0, float("nan")], ["a", "b"], 3):
        with pytest.raises(ValueError, match=r"media_ranges\['sound'\]"):
            MirasolConfig.from_preset("tiny", media_ranges={"sound": bounds})


def test_training_on_other_data_is_noted():
    config = MirasolConfig.from_preset("tiny", trained_on="films", media_ranges=RANGES)
    note_training(config, "films")  # more of the same
    assert (config.trained_on, config.media_ranges) == ("films", RANGES)
    for _ in range(2):  # a resumed run notes it again
        note_training(config, "songs")
        assert (config.trained_on, config.media_ranges) == ("films, then on songs", None)
    note_training(config)
    assert config.trained_on == f"films, then on songs, then on {UNNAMED}"
    fresh = MirasolConfig.from_preset("tiny")
    note_training(fresh)
    assert fresh.trained_on is None


def test_adapter_is_no_part_of_what_the_config_says(embedded, tmp_path):
    from peft import get_peft_model

    from mirasol_hf.cli.loading import load_pipeline
    from mirasol_hf.training.adapters import adapter_config

    base = AutoModelForMultimodalLM.from_pretrained(mirasol_hf.EMBEDDED_MODEL)
    get_peft_model(base, adapter_config("cross_attention", r=2)).save_pretrained(tmp_path)
    embedded.processor.save_pretrained(tmp_path)
    adapted = pipeline("video-question-answering", model=str(tmp_path), device="cpu")
    assert "then adapted" in adapted.trained_on()
    assert adapted.unfamiliar_traits({"sound_background_share": 9.0}) == []
    merged = load_pipeline(str(tmp_path))
    assert f"then on what the adapter {tmp_path.name} was trained on" in merged.trained_on()
    assert merged.model.config.media_ranges is None


def test_recipe_says_what_the_embedded_model_says():
    from mirasol_hf.training.recipe import load_recipe

    said = load_recipe("avscenes-tiny").config
    config = json.loads(Path(mirasol_hf.EMBEDDED_MODEL, "config.json").read_text(encoding="utf-8"))
    assert (said["trained_on"], said["media_ranges"]) == (config["trained_on"], config["media_ranges"])
