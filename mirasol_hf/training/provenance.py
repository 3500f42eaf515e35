"""What belongs to a model's weights: the data of its training, in the configuration, and results, by a hash."""

import hashlib
import re
from typing import Any

import torch

from mirasol_hf.modeling.loading_mirasol import TRAINING_WEIGHTS

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


def weights_hash(model: torch.nn.Module) -> str | None:
    """A hash of the weights that answer, by which a result is known to be theirs, in however many files they lie.

    Returns:
        64 hexadecimal digits; `None` for weights in a form of their own, as quantised ones.
    """
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if any(re.search(pattern, name) for pattern in TRAINING_WEIGHTS):
            continue
        if type(value) is not torch.Tensor:
            return None
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
