"""The library's training tests, and those of two-process training and tensor parallelism, over the whole model."""

import unittest

import pytest
from transformers_tests import test_fsdp_mixin, test_tensor_parallel_mixin
from transformers_tests.test_training_mixin import TrainingTesterMixin

from mirasol_hf import MirasolForConditionalGeneration, MirasolModel
from tests.conformance.model_testers import MirasolModelTester

pytestmark = pytest.mark.slow

# both mixins run their processes only for the model types that stand in these
test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES.add("mirasol")
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES.add("mirasol")


class WholeModel:
    subject = "the whole model"
    all_model_classes = (MirasolModel, MirasolForConditionalGeneration)
    model_tester = None

    def setUp(self):
        self.model_tester = MirasolModelTester(self)


class TrainingTest(WholeModel, TrainingTesterMixin, unittest.TestCase):
    pass


class TensorParallelTest(WholeModel, test_tensor_parallel_mixin.TensorParallelTesterMixin, unittest.TestCase):
    pass


class FSDPTest(WholeModel, test_fsdp_mixin.FSDPTesterMixin, unittest.TestCase):
    def _skip_if_insufficient_devices(self, world_size):
        """Processes on the CPU need no core each."""
