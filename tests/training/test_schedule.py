import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from mirasol_hf.training.recipe import Stage
from mirasol_hf.training.schedule import cosine_cycles

STEPS, WARMUP = 120, 10


def library_factors(steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, WARMUP, steps)
    return [schedule.lr_lambdas[0](step) for step in range(steps)]


def test_stages_without_restart_share_the_cosine_of_the_library():
    factor = cosine_cycles([Stage("a", 50), Stage("b", STEPS - 50)], WARMUP)

    assert [factor(step) for step in range(STEPS)] == pytest.approx(library_factors(STEPS), abs=1e-12)
    assert factor(STEPS) == pytest.approx(0.0, abs=1e-12)


def test_a_restart_is_a_second_cosine_of_its_own_length_and_height():
    factor = cosine_cycles([Stage("a", STEPS), Stage("b", 30, restart=0.5), Stage("c", 50)], WARMUP)

    assert [factor(step) for step in range(STEPS)] == pytest.approx(library_factors(STEPS), abs=1e-12)
    second = [factor(STEPS + step) for step in range(80)]
    assert second == pytest.approx([0.5 * value for value in library_factors(80)], abs=1e-12)


def test_the_first_stage_may_set_the_height_of_its_cycle():
    assert cosine_cycles([Stage("a", STEPS, restart=0.25)], WARMUP)(WARMUP) == 0.25


@pytest.mark.parametrize("restart", [0, -1, 1.5])
def test_a_restart_above_the_peak_or_at_nothing_is_refused(restart):
    with pytest.raises(ValueError, match="stage a: restart must be above 0 and at most 1"):
        Stage("a", 1, restart=restart)
