"""The model card, generated from the run: what the Hub reads (YAML), data, scores and limits.

Nothing on it is typed by hand: sizes come from the model, the run from `training_result.json`, scores from the files
of `mirasol eval --json`. What is not known is not on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from mirasol_hf.modeling.checkpoint_files_mirasol import json_object
from mirasol_hf.registration import PIPELINE_TASK

# what the code in an exported folder imports, beyond what these bring with them themselves
REQUIREMENTS = ("torch>=2.8,<3", "transformers>=5.23,<6", "av>=17,<19", "pillow>=11,<14")
PAPER = "https://arxiv.org/abs/2311.05698"
_LIMITS = (
    "It is no checkpoint of the paper's authors: none was ever published.",
    "Answers are short free text; they are not checked against anything, and their score is the model's own "
    "probability.",
    "It answers about the kinds of clips that it was trained on; its answers about other ones mean little.",
)


def read_json(path: str | os.PathLike[str], key: str) -> dict[str, Any]:
    """Read a JSON object that must have `key`.

    Raises:
        ValueError: the file holds no JSON object, or one without the key; the file is named.
        OSError: the file cannot be read.
    """
    content = json_object(path)
    if key not in content:
        raise ValueError(f"{os.fspath(path)} has no entry {key!r}; expected what this package wrote")
    return content


def model_card(
    model: Any,
    name: str,
    training_result: Mapping[str, Any] | None = None,
    evaluations: Sequence[Mapping[str, Any]] = (),
    with_code: bool = True,
    license: str = "apache-2.0",
) -> ModelCard:
    """Make the card of a model.

    Args:
        model: a `MirasolForConditionalGeneration`.
        name: of the model.
        training_result: what `run_recipe` returned.
        evaluations: what `evaluate` returned, one for each split or ablation.
        with_code: whether the folder holds the code for `trust_remote_code=True`.
        license: identifier of the Hub.
    """
    data = ModelCardData(
        language="en",
        license=license,
        library_name="transformers",
        pipeline_tag="video-text-to-text",
        tags=["mirasol", PIPELINE_TASK, "video", "audio"],
        datasets=sorted({str(result["benchmark"]) for result in evaluations}) or None,
        metrics=["exact_match"] if evaluations else None,
        model_name=name,
        eval_results=[_eval_result(result) for result in evaluations if not result.get("ablate")] or None,
    )
    sections = [
        f"# {name}",
        _description(model),
        _usage(with_code),
        *([f"It was trained on {model.config.trained_on}."] if model.config.trained_on else []),
        *([_training(training_result)] if training_result else []),
        *([_scores(evaluations)] if evaluations else []),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _LIMITS),
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _eval_result(result: Mapping[str, Any]) -> EvalResult:
    return EvalResult(
        task_type="video-text-to-text",
        dataset_type=str(result["benchmark"]),
        dataset_name=str(result["benchmark"]),
        dataset_split=str(result["split"]),
        metric_type="exact_match",
        metric_value=round(float(result["exact_match"]), 4),
        metric_name=f"exact match over {result['n']} questions",
    )


def _description(model: Any) -> str:
    config = model.config
    video, audio = config.video_config, config.audio_config
    count = sum(parameter.numel() for parameter in model.parameters())
    sound = "without sound" if audio is None else f"{audio.num_steps} spectrogram steps of {audio.num_mel_bins} bins"
    return (
        f"A model of the Mirasol3B architecture ([arXiv 2311.05698]({PAPER})) that answers in free text about videos "
        f"with their sound: {count:,} parameters; each chunk of a clip has {video.num_frames} frames of "
        f"{video.image_size} × {video.image_size} pixels and {sound}, and becomes "
        f"{config.combiner_config.num_output_tokens} joint features."
    )


def _usage(with_code: bool) -> str:
    plain = (
        "import mirasol_hf\nfrom transformers import pipeline\n\n"
        f'pipe = pipeline("{PIPELINE_TASK}", model="FOLDER_OR_REPOSITORY")\n'
        'pipe("clip.mp4", "What is heard at the end?")'
    )
    parts = ["## Use", f"```python\n{plain}\n```"]
    if with_code:
        parts.append(
            "Without the package `mirasol_hf`, with these alone (read the folder's code first, and pin `revision`):"
        )
        parts.append("```bash\npip install " + " ".join(f"'{name}'" for name in REQUIREMENTS) + "\n```")
        parts.append(
            "```python\nfrom transformers import pipeline\n\n"
            'pipe = pipeline(model="FOLDER_OR_REPOSITORY", trust_remote_code=True)\n```'
        )
    return "\n\n".join(parts)


def _training(result: Mapping[str, Any]) -> str:
    recipe = result["recipe"]
    rows = [
        f"- Recipe `{recipe.get('name')}`, preset `{recipe.get('preset')}`, seed {recipe.get('seed')}; "
        f"{result.get('steps')} steps in {result.get('seconds')} s on {result.get('hardware')}."
    ]
    for stage in recipe.get("stages") or ():
        rows.append(
            f"- Stage `{stage['name']}`: {stage['steps']} steps of {stage['batch_size']} clips with "
            f"{stage['questions']} questions each, {stage['min_seconds']} to {stage['max_seconds']} s."
        )
    losses = {key: value for key, value in (result.get("last_losses") or {}).items() if key.endswith("loss")}
    if losses:
        rows.append("- Last losses: " + ", ".join(f"{key} {value:.4g}" for key, value in losses.items()) + ".")
    return "## Training\n\n" + "\n".join(rows)


def _scores(evaluations: Sequence[Mapping[str, Any]]) -> str:
    head = "| benchmark | split | taken away | family | questions | exact match | best fixed answer |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for result in evaluations:
        place = f"| {result['benchmark']} | {result['split']} | {result.get('ablate') or 'nothing'} |"
        for family, scores in {"all": result, **(result.get("families") or {})}.items():
            rows.append(
                f"{place} {family} | {scores['n']} | {scores['exact_match']:.4f} | {scores['majority_rate']:.4f} |"
            )
    return "## Scores\n\n" + "\n".join(rows)
