"""What a model's configuration says about the data of its training, kept true when it is trained on."""

from typing import Any

UNNAMED = "other data, which nobody named"


def note_training(config: Any, data: str | None = None) -> None:
    """Add to a configuration that its model is trained on other data.

    The ranges of the media, measured on the earlier data, are dropped. Nothing changes where `data` are what the
    configuration says already, or came last, as in a run that is resumed.

    Args:
        config: a `MirasolConfig`.
        data: the training data in words; `None` where they are not known.
    """
    earlier = config.trained_on
    if data == earlier or (earlier or "").endswith(_then(data)):
        return
    config.trained_on = data if earlier is None else earlier + _then(data)
    config.media_ranges = None


def _then(data: str | None) -> str:
    return f", then on {data or UNNAMED}"
