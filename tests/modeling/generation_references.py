"""Decoding written out: every token takes the whole sequence and the raw media through `forward`, without a cache."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from packaging.version import Version

Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def next_logits(model: Any, input_ids: torch.Tensor, mask: torch.Tensor | None, **media: Any) -> torch.Tensor:
    """Logits [B, V] of the token that follows; `mask` [B, L₀] covers the first tokens."""
    if mask is not None:
        grown = input_ids.shape[1] - mask.shape[1]
        mask = torch.cat((mask, mask.new_ones(mask.shape[0], grown)), dim=1)
        media["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return model(input_ids=input_ids, attention_mask=mask, use_cache=False, **media).logits[:, -1].float()


@torch.no_grad()
def greedy(
    model: Any,
    input_ids: torch.Tensor,
    steps: int,
    mask: torch.Tensor | None = None,
    change: Change | None = None,
    **media: Any,
) -> torch.Tensor:
    """The most probable token, `steps` times; `change` makes scores of (sequence so far, logits)."""
    for _ in range(steps):
        logits = next_logits(model, input_ids, mask, **media)
        if change is not None:
            logits = change(input_ids, logits)
        input_ids = torch.cat((input_ids, logits.argmax(-1, keepdim=True)), dim=1)
    return input_ids


@torch.no_grad()
def sampled(
    model: Any, input_ids: torch.Tensor, steps: int, temperature: float, top_k: int, copies: int = 1, **media: Any
) -> torch.Tensor:
    """One draw for each row and step, from the `top_k` most probable tokens; each row `copies` times."""
    input_ids = input_ids.repeat_interleave(copies, dim=0)
    media = {name: value.repeat_interleave(copies, dim=0) for name, value in media.items()}
    for _ in range(steps):
        logits = next_logits(model, input_ids, None, **media) / temperature
        least = logits.sort(dim=-1, descending=True).values[:, top_k - 1 : top_k]
        weights = torch.where(logits < least, 0.0, logits.exp())
        drawn = torch.multinomial(weights / weights.sum(-1, keepdim=True), 1)
        input_ids = torch.cat((input_ids, drawn), dim=1)
    return input_ids


@torch.no_grad()
def beams(
    model: Any, input_ids: torch.Tensor, steps: int, width: int, draw: bool = False, **media: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Beam search without an end token: sequences [B, width, L + steps], best first, and their log-probabilities.

    With `draw` the 2·width continuations of a step are drawn, without replacement, instead of being the best ones.
    The best of those drawn go on; in the last step, those drawn first in Transformers before 5.24.
    """
    ends_with_first_drawn = Version(transformers.__version__) < Version("5.24")
    batch = input_ids.shape[0]
    sequences = [[row[None]] for row in input_ids]  # of each clip, its beams [beams, L]
    scores = [torch.zeros(1) for _ in range(batch)]
    for step in range(steps):
        totals = []
        for row in range(batch):
            beams_here = torch.cat(sequences[row])
            of_clip = {
                name: value[row : row + 1].expand(len(beams_here), *value.shape[1:]) for name, value in media.items()
            }
            log_probs = next_logits(model, beams_here, None, **of_clip).log_softmax(-1)
            total = (scores[row][:, None] + log_probs).flatten()
            missing = width * log_probs.shape[1] - total.shape[0]
            totals.append(torch.cat((total, total.new_full((missing,), -1e9))))
        chosen = choose(torch.stack(totals), 2 * width, draw)
        vocabulary = log_probs.shape[1]
        for row in range(batch):
            picks = chosen[row]
            if step < steps - 1 or not ends_with_first_drawn:
                picks = picks[totals[row][picks].argsort(descending=True)]
            picks = picks[:width]
            beams_here = torch.cat(sequences[row])
            sequences[row] = [
                torch.cat((beams_here[pick // vocabulary], (pick % vocabulary)[None]))[None] for pick in picks
            ]
            scores[row] = totals[row][picks]
    order = [score.argsort(descending=True) for score in scores]
    ranked = torch.stack([torch.cat(rows)[places] for rows, places in zip(sequences, order)])
    return ranked, torch.stack([score[places] for score, places in zip(scores, order)])


def choose(totals: torch.Tensor, count: int, draw: bool) -> torch.Tensor:
    """[B, candidates] → places [B, count]."""
    if draw:
        return torch.multinomial(totals.softmax(-1), count)
    return totals.topk(count).indices


def count_encodings(model: Any) -> list[str]:
    """Notes every run of a tower, by its name."""
    calls: list[str] = []
    for name in ("video_tower", "audio_tower"):
        tower = getattr(model.model, name)
        if tower is not None:
            tower.register_forward_hook(lambda module, args, output, name=name: calls.append(name))
    return calls
