"""Values of the fields that every configuration has, each other than its default."""

from transformers import PreTrainedConfig

_VALUES = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "is_encoder_decoder": True,
    "id2label": {0: "yes", 1: "no", 2: "maybe"},
    "label2id": {"yes": 0, "no": 1, "maybe": 2},
    "problem_type": "regression",
}
# the fields differ between versions of the library
config_common_kwargs = {key: value for key, value in _VALUES.items() if hasattr(PreTrainedConfig(), key)}
