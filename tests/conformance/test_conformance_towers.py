"""The library's model tests over the parts that are models of their own."""

import copy
import unittest

import pytest
from torch import nn
from transformers import MODEL_MAPPING
from transformers_tests.test_modeling_common import ModelTesterMixin

from mirasol_hf.modeling.audio_tower_mirasol import MirasolAudioModel
from mirasol_hf.modeling.combiner_mirasol import MirasolCombinerEmbeddings
from mirasol_hf.modeling.text_decoder_mirasol import MirasolTextModel
from mirasol_hf.modeling.video_tower_mirasol import MirasolVideoModel
from tests.conformance.model_testers import (
    AudioTowerTester,
    CombinerAlone,
    CombinerTester,
    TextDecoderTester,
    TimeModelAlone,
    TimeModelTester,
    VideoTowerTester,
    WholeAndPart,
)

pytestmark = pytest.mark.slow


class MediaPart(WholeAndPart, ModelTesterMixin):
    """What holds for the media parts: their input embeddings are no table of a vocabulary."""

    test_resize_embeddings = False

    def test_model_get_set_embeddings(self):
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        model = self.all_model_classes[0](config)
        given = model.get_input_embeddings()
        self.assertIsInstance(given, (nn.Linear, nn.Conv3d, MirasolCombinerEmbeddings))
        other = copy.deepcopy(given)
        model.set_input_embeddings(other)
        self.assertIs(model.get_input_embeddings(), other)
        self.assertIsNone(model.get_output_embeddings())


class VideoTowerTest(MediaPart, unittest.TestCase):
    subject = "the video tower"
    all_model_classes = (MirasolVideoModel,)

    def setUp(self):
        self.model_tester = VideoTowerTester(self)


class AudioTowerTest(MediaPart, unittest.TestCase):
    subject = "the audio tower"
    all_model_classes = (MirasolAudioModel,)

    def setUp(self):
        self.model_tester = AudioTowerTester(self)


class UnregisteredPart(MediaPart):
    """A part that `AutoModel` does not build; the library's tests find it there all the same."""

    def setUp(self):
        MODEL_MAPPING.register(self.model_tester.config_class, self.all_model_classes[0])
        self.addCleanup(MODEL_MAPPING._extra_content.pop, self.model_tester.config_class)


class CombinerTest(UnregisteredPart, unittest.TestCase):
    subject = "the Combiner"
    all_model_classes = (CombinerAlone,)

    def setUp(self):
        self.model_tester = CombinerTester(self)
        super().setUp()


class TimeModelTest(UnregisteredPart, unittest.TestCase):
    subject = "the time model"
    all_model_classes = (TimeModelAlone,)

    def setUp(self):
        self.model_tester = TimeModelTester(self)
        super().setUp()


class TextDecoderTest(WholeAndPart, ModelTesterMixin, unittest.TestCase):
    subject = "the text decoder"
    all_model_classes = (MirasolTextModel,)

    def setUp(self):
        self.model_tester = TextDecoderTester(self)
