"""A Token Turing Machine's step in float64 numpy, from the official arrays by their official names.

Written from a description of the official code (google-research/scenic, `projects/token_turing`), not from this
package: summaries of memory and inputs, a processing unit, and the new memory from memory, inputs and outputs.
"""

import math
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def norm(arrays: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]


def mlp(arrays: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    hidden = x @ arrays[f"{name}/Dense_0/kernel"] + arrays[f"{name}/Dense_0/bias"]
    hidden = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    return hidden @ arrays[f"{name}/Dense_1/kernel"] + arrays[f"{name}/Dense_1/bias"]


def attend(arrays: Arrays, name: str, queries: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    q, k, v = (
        np.einsum("bnc,chd->bhnd", x, arrays[f"{name}/{part}/kernel"]) + arrays[f"{name}/{part}/bias"][:, None]
        for part, x in (("query", queries), ("key", tokens), ("value", tokens))
    )
    weights = softmax(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]), -1)
    return np.einsum("bhnd,hdc->bnc", weights @ v, arrays[f"{name}/out/kernel"]) + arrays[f"{name}/out/bias"]


def summarise(arrays: Arrays, mode: str, index: int, tokens: np.ndarray) -> np.ndarray:
    if mode == "tl_mha":
        name = f"TokenLearnerMHA_{index}"
        queries = np.broadcast_to(arrays[f"{name}/tokens"], (len(tokens), *arrays[f"{name}/tokens"].shape[1:]))
        return attend(arrays, f"{name}/attn", queries, tokens)
    name = f"TokenLearnerModuleV11_{index}"
    weights = softmax(mlp(arrays, f"{name}/token_masking", norm(arrays, f"{name}/LayerNorm_0", tokens)), 1)
    return np.einsum("bnk,bnc->bkc", weights, tokens)


def process(arrays: Arrays, unit: str, layers: int, x: np.ndarray) -> np.ndarray:
    if unit == "transformer":
        x = x + arrays["Encoder_0/posembed_input/pos_embedding"]
        for i in range(layers):
            block = f"Encoder_0/encoderblock_{i}"
            normed = norm(arrays, f"{block}/LayerNorm_0", x)
            x = x + attend(arrays, f"{block}/MultiHeadDotProductAttention_0", normed, normed)
            x = x + mlp(arrays, f"{block}/MlpBlock_0", norm(arrays, f"{block}/LayerNorm_1", x))
        return norm(arrays, "Encoder_0/encoder_norm", x)
    if unit == "mixer":
        for i in range(layers):
            block = f"MixerBlock_{i}"
            mixed = norm(arrays, f"{block}/LayerNorm_0", x).swapaxes(1, 2)
            x = x + mlp(arrays, f"{block}/token_mixing", mixed).swapaxes(1, 2)
            x = x + mlp(arrays, f"{block}/channel_mixing", norm(arrays, f"{block}/LayerNorm_1", x))
        return norm(arrays, "LayerNorm_0", x)
    for i in range(layers):
        x = mlp(arrays, f"MlpBlock_{i}", norm(arrays, f"LayerNorm_{i}", x))
    return norm(arrays, f"LayerNorm_{layers}", x)


def erase_and_add(arrays: Arrays, memory: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    name = "TokenAddEraseWrite_0"
    slots = softmax(mlp(arrays, f"{name}/MlpBlock_0", norm(arrays, f"{name}/LayerNorm_0", memory)), 1)

    def mixed(index: int, first: int) -> np.ndarray:
        tokens = norm(arrays, f"{name}/LayerNorm_{index}", outputs).swapaxes(1, 2)
        return mlp(
            arrays, f"{name}/MlpBlock_{first + 1}", mlp(arrays, f"{name}/MlpBlock_{first}", tokens).swapaxes(1, 2)
        )

    erase, add = mixed(1, 1), mixed(2, 3)
    kept = (1 - slots[..., None] * erase[:, None]).prod(2)
    return memory * kept + (1 - slots[..., None] * add[:, None]).mean(2)


def step(arrays: Arrays, case: dict[str, Any], memory: np.ndarray, inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outputs and new memory, float64, for `memory_mode`, `processing_unit` and `num_layers` of a case."""
    seen = np.concatenate((memory, inputs), 1)
    mode = case["memory_mode"]
    read = summarise(arrays, mode, 0, seen + arrays.get("read_pos_embed/pos_embedding", 0))
    outputs = process(arrays, case["processing_unit"], case["num_layers"], read)
    if mode == "tl_add_erase":
        return outputs, erase_and_add(arrays, memory, outputs)
    written = np.concatenate((seen, outputs), 1) + arrays.get("write_pos_embed/pos_embedding", 0)
    return outputs, summarise(arrays, mode, 1, written)
