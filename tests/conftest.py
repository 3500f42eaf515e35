"""What several test folders share: an offline library, and small random models with their processor."""

import os
from pathlib import Path

import pytest

# Before anything imports Transformers, which reads them once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED_MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media" / "dev"


def build_random_pipeline_parts():
    """A tiny model with random weights and the processor that fits it: `(model, processor)`."""
    import torch

    from mirasol_hf import MirasolConfig, MirasolForConditionalGeneration, MirasolProcessor
    from mirasol_hf.training.tokenizer import train_tokenizer

    config = MirasolConfig.from_preset("tiny")
    torch.manual_seed(0)
    model = MirasolForConditionalGeneration(config).eval()
    words = ["what colour is the square ?", "what is heard ?", "the circle is called ada .", "red green blue"]
    processor = MirasolProcessor.for_config(config, train_tokenizer(words * 20, vocab_size=300), num_chunks=8)
    return model, processor


@pytest.fixture(scope="session")
def random_parts():
    return build_random_pipeline_parts()


@pytest.fixture(scope="session")
def random_folder(random_parts, tmp_path_factory):
    """A folder that `save_pretrained` wrote, with random weights."""
    folder = tmp_path_factory.mktemp("random-tiny")
    for part in random_parts:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scene_clip(tmp_path_factory):
    """A short mp4 with sound, rendered by the package itself."""
    from mirasol_hf.data.avscenes import sample_scene, write_scene

    path = tmp_path_factory.mktemp("clips") / "scene.mp4"
    write_scene(sample_scene("validation", 3, min_seconds=4, max_seconds=6), path)
    return path


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory):
    """A second one, longer."""
    from mirasol_hf.data.avscenes import sample_scene, write_scene

    path = tmp_path_factory.mktemp("clips") / "other.mp4"
    write_scene(sample_scene("validation", 4, min_seconds=8, max_seconds=10), path)
    return path
