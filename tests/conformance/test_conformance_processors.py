"""The library's processor tests over the processor and its parts."""

import copy
import math
import unittest
from unittest import mock

import numpy as np
import pytest
from transformers import testing_utils
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers_tests import test_video_processing_common
from transformers_tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin

from mirasol_hf import SAMPLE_CLIP, MirasolFeatureExtractor, MirasolProcessor, MirasolVideoProcessor, probe_media

pytestmark = pytest.mark.slow


def without_requirement(test):
    return test


# the processor reads files with PyAV: where the library's tests ask for another reader, they run without it
with mock.patch.multiple(testing_utils, require_librosa=without_requirement, require_torchcodec=without_requirement):
    from transformers_tests import test_processing_common

# the public name is a placeholder that raises where torchvision is absent
test_video_processing_common.AutoVideoProcessor = AutoVideoProcessor

CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] or [] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}"
    "{% for call in message['tool_calls'] or [] %}{{ call['function']['name'] }}{% endfor %}"
    "{% if message['role'] == 'user' %}{{ '\n' }}{% endif %}{% endfor %}"
)


class FeatureExtractorTester:
    """Feature sequences of different lengths, shortest first."""

    batch_size = 4
    min_seq_length = 40
    max_seq_length = 160
    feature_size = 24

    @property
    def seq_length_diff(self):
        return (self.max_seq_length - self.min_seq_length) // (self.batch_size - 1)

    def prepare_feat_extract_dict(self):
        return {"num_mel_bins": self.feature_size, "num_steps": 8, "padding_value": 0.0, "sampling_rate": 16_000}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        shortest = self.max_seq_length if equal_length else self.min_seq_length
        lengths = [shortest + (0 if equal_length else i * self.seq_length_diff) for i in range(self.batch_size)]
        rows = [np.random.default_rng(i).random((n, self.feature_size)).astype("f4") for i, n in enumerate(lengths)]
        return rows if numpify else [row.tolist() for row in rows]


class FeatureExtractorTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    subject = "the feature extractor"
    feature_extraction_class = MirasolFeatureExtractor
    feat_extract_tester = FeatureExtractorTester()


class VideoProcessorTester:
    """Clips of random pictures; with one in each chunk, the axis of chunks is that of frames."""

    batch_size = 4
    num_channels = 3
    min_resolution = 30
    max_resolution = 80
    height = width = 18

    def __init__(self, frames_per_chunk):
        self.num_frames = 6
        self.frames_per_chunk = frames_per_chunk

    def expected_output_video_shape(self, videos):
        return self.num_frames // self.frames_per_chunk, self.frames_per_chunk, 3, self.height, self.width

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return test_video_processing_common.prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=self.min_resolution,
            max_resolution=self.max_resolution,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class VideoProcessorTest(test_video_processing_common.VideoProcessingTestMixin, unittest.TestCase):
    subject = "the video processor"
    fast_video_processing_class = MirasolVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        # the library's test of a fourth channel writes the three that are left to the second axis of the shape
        self.video_processor_tester = VideoProcessorTester(3 if "4_channels" in self._testMethodName else 1)

    @property
    def video_processor_dict(self):
        size = {"height": self.video_processor_tester.height, "width": self.video_processor_tester.width}
        return {
            "size": size,
            "num_frames": self.video_processor_tester.frames_per_chunk,
            "do_sample_frames": False,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }

    def test_video_processor_from_dict_with_kwargs(self):
        given = self.fast_video_processing_class.from_dict(self.video_processor_dict)
        self.assertEqual(given.size, {"height": 18, "width": 18})
        changed = self.fast_video_processing_class.from_dict(self.video_processor_dict, size=42, num_chunks=5)
        self.assertEqual(changed.size, {"height": 42, "width": 42})
        self.assertEqual(changed.num_chunks, 5)

    def test_override_instance_attributes_does_not_affect_other_instances(self):
        first, second = self.fast_video_processing_class(), self.fast_video_processing_class()
        original = copy.deepcopy(dict(second.size))
        first.size["height"] = first.size["width"] = -1
        self.assertEqual(dict(second.size), original)
        second.size["height"] = second.size["width"] = -2
        self.assertEqual(dict(first.size), {"height": -1, "width": -1})
        self.assertEqual(dict(self.fast_video_processing_class().size), original)
        self.assertIsInstance(first.image_mean, tuple)  # which nobody can change in place


class ProcessorTest(test_processing_common.ProcessorTesterMixin, unittest.TestCase):
    subject = "the processor"
    processor_class = MirasolProcessor

    @staticmethod
    def prepare_processor_dict():
        return {"chat_template": CHAT_TEMPLATE}

    def prepare_text_inputs(self, batch_size=None, modalities=None):
        """Finished prompts, which the processor leaves as they are; a question would get its prompt's ending."""
        texts = super().prepare_text_inputs(batch_size, modalities)
        return f"{texts}\n" if isinstance(texts, str) else [f"{text}\n" for text in texts]

    def test_apply_chat_template_decoded_video_0(self):
        processor = self.get_processor()
        told = {"video_metadata": [{"fps": 4.0, "total_num_frames": 8}], "num_frames": 2}
        content = [{"type": "video", "video": self.prepare_videos_inputs()}, {"type": "text", "text": "describe it"}]
        out = processor.apply_chat_template(
            [[{"role": "user", "content": content}]],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=told,
        )
        self.assertEqual(tuple(out[self.videos_input_name].shape), (1, 2, 1, 3, 32, 32))

    def test_chat_template_audio_from_video(self):
        processor = self.get_processor()
        shape = processor.video_processor(str(SAMPLE_CLIP))[self.videos_input_name].shape[1:]
        sound = test_processing_common.MODALITY_INPUT_DATA["audio"][0]
        question = {"type": "text", "text": "what is heard?"}
        seen = [{"type": "video", "path": str(SAMPLE_CLIP)}, {"type": "audio"}, question]
        conversations = [[{"role": "user", "content": content}] for content in (seen, seen[2:])]
        conversations[1][0]["content"].append({"type": "audio", "path": sound})
        for given, seen_in in ((conversations[:1], [True]), (conversations, [True, False])):
            out = processor.apply_chat_template(
                given,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                load_audio_from_video=True,
            )
            self.assertEqual(len(out["input_ids"]), len(given))
            self.assertEqual(len(out["attention_mask"]), len(given))
            self.assertEqual(out[self.audio_input_name].shape[0], len(given))
            self.assertTrue(out["audio_mask"].any(dim=1).all())
            self.assertEqual(out[self.videos_input_name].shape, (len(given), *shape))
            self.assertEqual(out["video_mask"].any(dim=1).tolist(), seen_in)

    def test_apply_chat_template_video_frame_sampling(self):
        processor = self.get_processor()
        content = [{"type": "video", "url": str(SAMPLE_CLIP)}, {"type": "text", "text": "what is shown?"}]
        tenths = math.ceil(probe_media(SAMPLE_CLIP)["duration"] * 10 - 1e-6)
        for asked, frames in (
            ({"num_frames": 3}, 3),
            ({"fps": 10}, tenths),
            ({"do_sample_frames": False}, 8),
            ({}, 8),
        ):
            out = processor.apply_chat_template(
                [[{"role": "user", "content": content}]],
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs=asked,
            )
            self.assertEqual(out[self.videos_input_name].shape[1], frames)

    @classmethod
    def _setup_tokenizer(cls):
        from mirasol_hf.training.tokenizer import train_tokenizer

        words = ["lower newer upper older longer string", "what is shown in this video?", "the capital of france"]
        return train_tokenizer(words * 20, vocab_size=300)

    @classmethod
    def _setup_video_processor(cls):
        return MirasolVideoProcessor(size={"height": 32, "width": 32}, num_frames=1)

    @classmethod
    def _setup_feature_extractor(cls):
        return MirasolFeatureExtractor()
