"""How the pipeline mixin builds and runs a pipeline of each task that Mirasol serves."""

import unittest
from typing import Any

from transformers import pipeline

from mirasol_hf import SAMPLE_CLIP


class PipelineRun:
    """Builds one pipeline, and says what it is asked."""

    task = ""
    examples: list[Any] = []

    def get_test_pipeline(self, model: Any, tokenizer: Any, processor: Any = None, **parts: Any) -> tuple[Any, list]:
        parts.pop("feature_extractor", None)
        return self.build(model.to(dtype_of(parts.pop("dtype"))), tokenizer, processor), self.examples

    def build(self, model: Any, tokenizer: Any, processor: Any) -> Any:
        return pipeline(self.task, model=model, tokenizer=tokenizer)

    def run_pipeline_test(self, pipe: Any, examples: list) -> None:
        raise NotImplementedError


class VideoQuestionAnsweringRun(PipelineRun):
    task = "video-question-answering"
    examples = [{"video": str(SAMPLE_CLIP), "question": question} for question in ("what is shown?", "what is heard?")]

    def build(self, model: Any, tokenizer: Any, processor: Any) -> Any:
        return pipeline(self.task, model=model, processor=processor, max_new_tokens=4)

    def run_pipeline_test(self, pipe: Any, examples: list) -> None:
        check = unittest.TestCase()
        answers = pipe(examples[0], top_k=2)
        check.assertTrue(1 <= len(answers) <= 2)
        for answer in answers:
            check.assertEqual({key: type(value) for key, value in answer.items()}, {"answer": str, "score": float})
        check.assertEqual([len(rows) for rows in pipe(examples)], [1] * len(examples))


class TextGenerationRun(PipelineRun):
    task = "text-generation"
    examples = ["what is shown?", "what is heard?"]

    def build(self, model: Any, tokenizer: Any, processor: Any) -> Any:
        return pipeline(self.task, model=model, tokenizer=tokenizer, max_new_tokens=4)

    def run_pipeline_test(self, pipe: Any, examples: list) -> None:
        [written] = pipe(examples[0], do_sample=False)
        unittest.TestCase().assertTrue(written["generated_text"].startswith(examples[0]))


class FeatureExtractionRun(PipelineRun):
    task = "feature-extraction"
    examples = ["what is shown?", "what is heard?"]

    def run_pipeline_test(self, pipe: Any, examples: list) -> None:
        [rows] = pipe(examples[0])
        width = pipe.model.config.text_config.hidden_size
        unittest.TestCase().assertEqual({len(row) for row in rows}, {width})


def dtype_of(name: str) -> Any:
    import torch

    return getattr(torch, name)
