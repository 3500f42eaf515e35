"""Eight-bit weights on CPU, by torchao through the library's quantizer; skipped where torchao is not installed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMultimodalLM

import mirasol_hf

pytest.importorskip("torchao")


@torch.no_grad()
def test_eight_bit_weights_keep_the_answers_and_travel(tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoProcessor, TorchAoConfig

    plain = AutoModelForMultimodalLM.from_pretrained(mirasol_hf.EMBEDDED_MODEL)
    small = AutoModelForMultimodalLM.from_pretrained(
        mirasol_hf.EMBEDDED_MODEL, quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
    )
    weight = small.model.video_tower.layers[0].mlp.up_proj.weight
    assert type(weight).__name__ == "Int8Tensor"
    assert small.lm_head.weight is small.get_input_embeddings().weight
    processor = AutoProcessor.from_pretrained(mirasol_hf.EMBEDDED_MODEL)
    inputs: dict[str, Any] = dict(processor(
        text=processor.build_prompt("Which shape comes first?"), videos=mirasol_hf.SAMPLE_CLIP, return_tensors="pt"
    ))  # fmt: skip
    expected, found = plain.generate(**inputs, max_new_tokens=4), small.generate(**inputs, max_new_tokens=4)
    assert found.tolist() == expected.tolist()
    inputs = {name: value for name, value in inputs.items() if not name.startswith(("video_time", "chunk_sec"))}
    error = small(**inputs).logits - plain(**inputs).logits
    assert 0 < error.norm() / plain(**inputs).logits.norm() < 0.05
    small.save_pretrained(tmp_path)
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**inputs).logits, small(**inputs).logits, atol=1e-6, rtol=0)
