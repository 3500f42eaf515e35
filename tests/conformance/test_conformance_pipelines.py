"""The library's pipeline tests over the tasks that Mirasol serves, with random weights from a local folder."""

import tempfile
import unittest
from pathlib import Path

import pytest
from transformers_tests import test_pipeline_mixin

from mirasol_hf import MirasolForConditionalGeneration, MirasolModel, MirasolProcessor
from tests.conftest import build_random_pipeline_parts

pytestmark = pytest.mark.slow

RUNS = {
    "video-question-answering": "VideoQuestionAnsweringRun",
    "text-generation": "TextGenerationRun",
    "feature-extraction": "FeatureExtractionRun",
}


class PipelineTest(test_pipeline_mixin.PipelineTesterMixin, unittest.TestCase):
    subject = "the whole model"
    pipeline_model_mapping = {
        "video-question-answering": MirasolForConditionalGeneration,
        "text-generation": MirasolForConditionalGeneration,
        "feature-extraction": MirasolModel,
    }

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        generator, processor = build_random_pipeline_parts()
        parts = {"tokenizer_classes": ["PreTrainedTokenizerFast"], "processor_classes": []}
        for model in (generator, generator.model):
            name = type(model).__name__
            for part in (model, processor):
                part.save_pretrained(Path(folder.name) / "mirasol" / name)
            test_pipeline_mixin.tiny_model_summary[name] = parts
        # in place of the Hub's tiny models, and of the library's own classes and pipeline tests
        test_pipeline_mixin.TRANSFORMERS_TINY_MODEL_PATH = folder.name
        test_pipeline_mixin.PROCESSOR_MAPPING_NAMES = {"mirasol": "MirasolProcessor"}
        test_pipeline_mixin.transformers_module.MirasolProcessor = MirasolProcessor
        for task, run in RUNS.items():
            test_pipeline_mixin.pipeline_test_mapping[task] = {"test": f"tests.conformance.pipeline_runs.{run}"}

    def test_pipeline_video_question_answering(self):
        self.run_task_tests(task="video-question-answering")

    def test_pipeline_video_question_answering_fp16(self):
        self.run_task_tests(task="video-question-answering", dtype="float16")
