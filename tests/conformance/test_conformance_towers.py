"""The library's model tests over the parts that are models of their own."""

import copy
import unittest

import pytest
from torch import nn
from transformers_tests.test_modeling_common import ModelTesterMixin

from mirasol_hf.modeling.audio_tower_mirasol import MirasolAudioModel
from mirasol_hf.modeling.text_decoder_mirasol import MirasolTextModel
from mirasol_hf.modeling.video_tower_mirasol import MirasolVideoModel
from tests.conformance.model_testers import AudioTowerTester, TextDecoderTester, VideoTowerTester

pytestmark = pytest.mark.slow


class MediaTower(ModelTesterMixin):
    """What holds for a tower: its input embeddings are no table of a vocabulary."""

    test_resize_embeddings = False

    def test_model_get_set_embeddings(self):
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        model = self.all_model_classes[0](config)
        given = model.get_input_embeddings()
        self.assertIsInstance(given, (nn.Linear, nn.Conv3d))
        other = copy.deepcopy(given)
        model.set_input_embeddings(other)
        self.assertIs(model.get_input_embeddings(), other)
        self.assertIsNone(model.get_output_embeddings())


class VideoTowerTest(MediaTower, unittest.TestCase):
    subject = "the video tower"
    all_model_classes = (MirasolVideoModel,)

    def setUp(self):
        self.model_tester = VideoTowerTester(self)


class AudioTowerTest(MediaTower, unittest.TestCase):
    subject = "the audio tower"
    all_model_classes = (MirasolAudioModel,)

    def setUp(self):
        self.model_tester = AudioTowerTester(self)


class TextDecoderTest(ModelTesterMixin, unittest.TestCase):
    subject = "the text decoder"
    all_model_classes = (MirasolTextModel,)

    def setUp(self):
        self.model_tester = TextDecoderTester(self)
