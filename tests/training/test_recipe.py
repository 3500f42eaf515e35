"""Recipes are read strictly, and the shipped one runs."""

from pathlib import Path

import pytest

from mirasol_hf.training.recipe import load_recipe


def test_shipped_recipe() -> None:
    recipe = load_recipe("avscenes-tiny")
    assert recipe.preset == "tiny" and recipe.steps == sum(stage.steps for stage in recipe.stages) > 0
    assert recipe.stages[-1].families is None


def test_overrides() -> None:
    recipe = load_recipe(
        "avscenes-tiny",
        ["seed=7", "stages.0.steps=3", "config.text_config.dropout=0.1", "optimisation.learning_rate=5e-4"],
    )
    assert (recipe.seed, recipe.stages[0].steps, recipe.optimisation.learning_rate) == (7, 3, 5e-4)
    assert recipe.config["text_config"] == {"dropout": 0.1}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "must have the form key=value"),
        ("sead=1", "unknown 'sead'; known are name, preset"),
        ("stages.0.stops=1", r"stages\.0: unknown 'stops'"),
        ("stages.9.steps=1", "does not fit the recipe"),
        ("optimisation.learning_rate=fast", "expected a number, got 'fast'"),
        ("stages=[]", "stages must not be empty"),
        ("stages=3", "expected a list of stages"),
        ("tokenizer=3", "expected a mapping for TokenizerRecipe"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("avscenes-tiny", [override])


def test_unknown_recipe() -> None:
    with pytest.raises(ValueError, match=r"no recipe 'nonsense'.*avscenes-tiny"):
        load_recipe("nonsense")


def test_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: [", encoding="utf-8")
    with pytest.raises(ValueError, match="no readable recipe"):
        load_recipe(path)
    path.write_text("- 1", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a mapping, got list"):
        load_recipe(path)
    path.write_text("name: a\npreset: tiny", encoding="utf-8")
    with pytest.raises(ValueError, match="missing 'stages'"):
        load_recipe(path)
