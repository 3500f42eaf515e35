"""Naming questions: the answer stands in the text, and the name decides which words it is."""

from __future__ import annotations

import numpy as np

from mirasol_hf.data.avscenes import sample_scene
from mirasol_hf.modeling.configuration_mirasol import MirasolConfig
from mirasol_hf.training.avscenes_data import AVScenesClips
from mirasol_hf.training.naming import naming_questions
from mirasol_hf.training.recipe import Stage
from mirasol_hf.training.tokenizer import train_tokenizer
from mirasol_hf.training.train import build_processor


def test_the_answer_stands_beside_the_name() -> None:
    several = 0
    for index in range(20):
        for question in naming_questions(sample_scene("train", index), np.random.default_rng(index)):
            assert question.context is not None
            name = next(word.strip("?") for word in question.question.split()[1:] if word.istitle())
            assert f"The {question.answer} is called {name}." in question.context
            several += question.context.count("called") > 1
    assert several > 20


def test_a_stage_adds_them_behind_its_other_questions() -> None:
    processor = build_processor(MirasolConfig.from_preset("tiny"), train_tokenizer([""], vocab_size=259))
    plain = AVScenesClips(processor, [Stage("plain", 1, 1, 6, (2,))])[0]
    named = AVScenesClips(processor, [Stage("named", 1, 1, 6, (2,), naming=2)])[0]
    assert named["prompt"][:6] == plain["prompt"] and len(named["prompt"]) == 8
    assert all("called" in prompt for prompt in named["prompt"][6:])
