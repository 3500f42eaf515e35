"""The library's configuration tests over the whole configuration and each section."""

import unittest

import pytest
from transformers_tests.test_configuration_common import ConfigTester

from mirasol_hf import (
    MirasolAudioConfig,
    MirasolCombinerConfig,
    MirasolConfig,
    MirasolTextConfig,
    MirasolTimeConfig,
    MirasolVideoConfig,
)
from tests.conformance.model_testers import MirasolModelTester

pytestmark = pytest.mark.slow

FIELDS = {
    MirasolConfig: {"text_loss_weight": 10.0},
    MirasolVideoConfig: {"hidden_size": 64, "num_attention_heads": 4},
    MirasolAudioConfig: {"hidden_size": 64, "num_attention_heads": 4},
    MirasolCombinerConfig: {"hidden_size": 64, "num_attention_heads": 4},
    MirasolTimeConfig: {"hidden_size": 64, "num_attention_heads": 4},
    MirasolTextConfig: {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2},
}


class ConfigurationTest(unittest.TestCase):
    subject = "the configurations"

    def setUp(self):
        self.model_tester = MirasolModelTester(self)

    def test_common(self):
        for config_class, fields in FIELDS.items():
            with self.subTest(config_class.__name__):
                has_text = config_class in (MirasolConfig, MirasolTextConfig)
                ConfigTester(self, config_class, has_text_modality=has_text, **fields).run_common_tests()
