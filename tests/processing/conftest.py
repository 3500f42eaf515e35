import json
from pathlib import Path

import pytest
import torch
from media_maker import write_media
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
from mirasol_hf.processing.processing_mirasol import MirasolProcessor
from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor

SHARED = Path(__file__).resolve().parents[3] / "shared" / "media" / "dev"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<pad>", "<bos>", "<eos>", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", model_max_length=200
    )


@pytest.fixture(scope="session")
def processor(tokenizer):
    return MirasolProcessor(MirasolVideoProcessor(size=64, num_chunks=4), MirasolFeatureExtractor(), tokenizer)


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """Folder of small files of many kinds; flash and tone at 0.8 s and 2.6 s."""
    folder = tmp_path_factory.mktemp("media")
    write_media(folder / "clip.mp4")
    write_media(folder / "stereo.mp4", channels="stereo", rate=48000)
    write_media(folder / "clip.mkv", audio="libopus", rate=48000)
    write_media(folder / "clip.webm", video="libvpx-vp9", audio="libopus", rate=48000, seconds=3.0)
    write_media(folder / "clip.mov", rotation=90)
    write_media(folder / "late.mp4", audio_delay=0.5)
    write_media(folder / "silent.mp4", audio=None, seconds=2.0)
    write_media(folder / "faststart.mp4", options={"movflags": "faststart"})
    write_media(folder / "frames.h264", audio=None, seconds=2.0)
    for name, codec in {
        "sound.wav": "pcm_s16le",
        "sound.flac": "flac",
        "sound.mp3": "libmp3lame",
        "sound.m4a": "aac",
        "sound.ogg": "libopus",
    }.items():
        rate = 48000 if codec == "libopus" else 44100
        write_media(folder / name, video=None, audio=codec, rate=rate)
    (folder / "text.mp4").write_text("this is no film, only a text that is called one\n" * 20)
    (folder / "cut.mp4").write_bytes((folder / "faststart.mp4").read_bytes()[:-6000])
    (folder / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def shared_media():
    """The folder of files with an oracle and its manifest, where it exists."""
    if not (SHARED / "manifest.json").is_file():
        pytest.skip("the folder ../shared/media with the files of the oracle is not here")
    entries = json.loads((SHARED / "manifest.json").read_text())["files"]
    return SHARED, {entry["name"]: entry for entry in entries if entry.get("name")}
