"""Recipes: everything a training run is made of, in one YAML file that also says what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

RECIPES = Path(__file__).parent / "recipes"

Section = TypeVar("Section")


@dataclass(frozen=True)
class TokenizerRecipe:
    """The tokenizer that is trained first.

    Attributes:
        vocab_size: upper bound on its entries.
        num_scenes: training scenes whose text it sees.
    """

    vocab_size: int = 512
    num_scenes: int = 2000


@dataclass(frozen=True)
class Stage:
    """One part of the curriculum: some steps on clips of one kind.

    Attributes:
        name: what the log calls it.
        steps: optimiser steps.
        batch_size: clips per step.
        questions: questions per clip.
        num_chunks: chunks per clip, K; of several, each clip takes one at random.
        min_seconds: shortest clip.
        max_seconds: longest clip.
        num_events: smallest and largest number of events per clip; `None` leaves it to the generator.
        families: question families asked; `None` for all.
        window: `"clip"` for whole clips, `"event"` for the part of a clip that shows one event, with its own four
            questions.
        restart: the learning rate starts anew at this share of its peak; `None` goes on with the running cycle (see
            `mirasol_hf.training.schedule.cosine_cycles`).
    """

    name: str
    steps: int
    batch_size: int = 16
    questions: int = 8
    num_chunks: tuple[int, ...] = (8,)
    min_seconds: float = 4.0
    max_seconds: float = 64.0
    num_events: tuple[int, int] | None = None
    families: tuple[str, ...] | None = None
    window: str = "clip"
    restart: float | None = None

    def __post_init__(self) -> None:
        if self.restart is not None and not 0 < self.restart <= 1:
            raise ValueError(f"stage {self.name}: restart must be above 0 and at most 1, got {self.restart!r}")
        if self.window not in ("clip", "event"):
            raise ValueError(f"stage {self.name}: window must be 'clip' or 'event', got {self.window!r}")


@dataclass(frozen=True)
class Normalisation:
    """Statistics of the training clips that the processor is saved with.

    Attributes:
        image_mean: mean of the pixels in [0, 1].
        image_std: their standard deviation.
        db_offset: minus the mean of the spectrograms, in decibels.
        db_scale: their standard deviation, in decibels.
    """

    image_mean: float = 0.5
    image_std: float = 0.5
    db_offset: float = 40.0
    db_scale: float = 40.0


@dataclass(frozen=True)
class Augmentation:
    """What the training clips suffer, so that the model also reads files that a codec has touched.

    Attributes:
        picture_noise: largest standard deviation of pixel noise, in grey levels of 255.
        blur: probability that a clip's pictures are slightly blurred.
        brightness: largest change of brightness, in grey levels.
        gain_db: largest change of loudness, in decibels.
        sound_noise_db: loudest added noise, in decibels of full scale; `None` for none.
        padding_seconds: longest silence after the last picture, as codecs that work in blocks leave it.
        drop_sound: probability that a clip has no sound.
        drop_pictures: probability that a clip has no pictures.
        answerable_only: ask clips with a missing modality only what the other one can tell.
    """

    picture_noise: float = 3.0
    blur: float = 0.3
    brightness: float = 6.0
    gain_db: float = 3.0
    sound_noise_db: float | None = -55.0
    padding_seconds: float = 0.08
    drop_sound: float = 0.0
    drop_pictures: float = 0.0
    answerable_only: bool = True


@dataclass(frozen=True)
class Optimisation:
    """Optimiser, in the words of `TrainingArguments`; the schedule is `mirasol_hf.training.schedule.cosine_cycles`.

    Attributes:
        muon_scale: learning rate of Muon for the matrices, as a multiple of `learning_rate`; 0 for AdamW alone.
    """

    muon_scale: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 200
    adam_beta2: float = 0.98
    max_grad_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    bf16: bool = False


@dataclass(frozen=True)
class Running:
    """How the run uses the machine and how often it reports.

    Attributes:
        num_threads: threads of the training process; `None` leaves torch's own choice.
        workers: processes that render clips.
        save_steps: steps between checkpoints.
        save_total_limit: checkpoints kept.
        logging_steps: steps between log lines.
        eval_steps: steps between evaluations on validation scenes; 0 for none.
        eval_clips: scenes of each of them.
        packed: a clip's questions share one row of text (see `MirasolDataCollator`).
        attn_implementation: of the model while it trains.
    """

    num_threads: int | None = None
    workers: int = 1
    save_steps: int = 500
    save_total_limit: int = 2
    logging_steps: int = 50
    eval_steps: int = 500
    eval_clips: int = 64
    packed: bool = True
    attn_implementation: str = "sdpa"


# what a recipe tells of the run that its author made
_RECORDED = ("hardware", "time", "result")


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        name: of the recipe.
        preset: of the model, as in `MirasolConfig.from_preset`.
        stages: the curriculum, in order.
        seed: of weights, scenes and augmentation.
        config: changes to the preset; a section's entry patches that section.
        hardware: on which the recorded result was made.
        time: wall clock of it.
        result: what it reached.
    """

    name: str
    preset: str
    stages: tuple[Stage, ...]
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    normalisation: Normalisation = field(default_factory=Normalisation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimisation: Optimisation = field(default_factory=Optimisation)
    running: Running = field(default_factory=Running)
    hardware: str | None = None
    time: str | None = None
    result: Any = None

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain values, as the file holds them."""
        return asdict(self)

    def plan(self) -> dict[str, Any]:
        """What is to be done, without what came of it where the recipe was recorded."""
        return {name: value for name, value in self.to_dict().items() if name not in _RECORDED}


def recipe_settings(recipe: Recipe) -> dict[str, Any]:
    """What makes a run of a recipe the same run, by dotted names: all but how it runs and what came of it."""
    values = recipe.plan()
    stages = values.pop("stages")
    found = {"running.packed": values.pop("running")["packed"], "stages": len(stages)}
    del values["name"]
    for section in ("tokenizer", "normalisation", "augmentation", "optimisation"):
        found |= {f"{section}.{name}": value for name, value in values.pop(section).items()}
    for index, stage in enumerate(stages):
        found |= {f"stages.{index}.{name}": value for name, value in stage.items()}
    return {**values, **found}


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by its name in the package or its path.

    Args:
        recipe: `"avscenes-tiny"`, or a path to a YAML file.
        overrides: `key=value` each, where the key is a dotted path such as `stages.0.steps` or
            `config.text_config.dropout` and the value is YAML.

    Raises:
        ValueError: if there is no such recipe, or a key or value is not understood.
    """
    path = Path(recipe)
    if not path.is_file() and path.suffix == "":
        path = RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise ValueError(f"no recipe {str(recipe)!r}: give a path to a YAML file or one of {known}")
    values = _read(path)
    for override in overrides:
        _override(values, override)
    built = _build(Recipe, values, str(path))
    if not built.stages:
        raise ValueError(f"{path}: stages must not be empty")
    return built


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable recipe: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no recipe: expected a mapping, got {type(values).__name__}")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    """Set one dotted key of nested mappings and lists."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"override {override!r} must have the form key=value")
    *parents, last = key.split(".")
    place: Any = values
    try:
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(text)
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"override {override!r} does not fit the recipe: {error}") from error


def _build(kind: type[Section], values: Any, where: str) -> Section:
    """Build a recipe dataclass from plain values, unknown and missing names refused."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected a mapping for {kind.__name__}, got {values!r}")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
    required = [n for n, e in known.items() if e.default is MISSING and e.default_factory is MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(map(repr, missing))}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint == tuple[Stage, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list of stages, got {value!r}")
        return tuple(_build(Stage, entry, f"{where}.{index}") for index, entry in enumerate(value))
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3, without a dot, as a string.
        try:
            return float(value)
        except ValueError as error:
            raise ValueError(f"{where}: expected a number, got {value!r}") from error
    if hint == tuple[int, ...]:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if isinstance(value, list):
        return tuple(value)
    return value
