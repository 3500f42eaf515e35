"""The library's model tests over the whole model."""

import unittest

import pytest
from transformers_tests.generation.test_utils import GenerationTesterMixin
from transformers_tests.test_modeling_common import ModelTesterMixin

from mirasol_hf import MirasolForConditionalGeneration, MirasolModel
from tests.conformance.model_testers import MirasolModelTester, WholeAndPart

pytestmark = pytest.mark.slow


class MirasolModelTest(WholeAndPart, ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    subject = "the whole model"
    all_model_classes = (MirasolModel, MirasolForConditionalGeneration)

    def setUp(self):
        self.model_tester = MirasolModelTester(self)
