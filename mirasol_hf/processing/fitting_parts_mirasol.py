"""The parts of a processor that fit a model's configuration, of which only the fields are read here."""

from typing import Any

from .feature_extraction_mirasol import MirasolFeatureExtractor
from .video_processing_mirasol import MirasolVideoProcessor


def fitting_parts(config: Any, options: dict[str, Any]) -> tuple[MirasolVideoProcessor, MirasolFeatureExtractor]:
    """Makes both parts.

    Args:
        config: the whole model's.
        options: of either part; they go before what the configuration says.

    Raises:
        TypeError: for an option that neither part knows.
    """
    video, audio = config.video_config, config.audio_config
    of_sound = MirasolFeatureExtractor.option_names()
    heard = {name: value for name, value in options.items() if name in of_sound}
    seen = {name: value for name, value in options.items() if name not in of_sound}
    pictures = {
        "size": {"height": video.image_size, "width": video.image_size},
        "num_frames": video.num_frames,
        "image_mean": [0.5] * video.num_channels,
        "image_std": [0.5] * video.num_channels,
    }
    names = () if audio is None else ("sampling_rate", "num_mel_bins", "num_steps")
    sound = {name: getattr(audio, name) for name in names}
    return MirasolVideoProcessor(**{**pictures, **seen}), MirasolFeatureExtractor(**{**sound, **heard})


def check_tokenizer(tokenizer: Any, config: Any) -> None:
    """Raises ValueError where a tokenizer and the text section of a configuration disagree."""
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} entries, but text_config.vocab_size is {config.vocab_size}"
        )
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        given, expected = getattr(tokenizer, name), getattr(config, name)
        if name == "bos_token_id" and given is None:  # many tokenizers put nothing before a text
            continue
        if given not in (expected if isinstance(expected, list) else [expected]):
            raise ValueError(f"the tokenizer's {name} is {given}, but text_config.{name} is {expected}")
