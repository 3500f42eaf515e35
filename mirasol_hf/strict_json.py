"""JSON as its standard has it (RFC 8259): no NaN and no infinities, for which other readers have no name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """`json.dumps`, with null for numbers that are not finite."""
    return json.dumps(without_non_finite(value), allow_nan=False, **options)


def without_non_finite(value: Any) -> Any:
    """A copy of mappings, lists and what they hold, with None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
