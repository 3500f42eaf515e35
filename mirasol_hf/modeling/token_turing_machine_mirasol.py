# Copyright 2026 The mirasol_hf authors. Licensed under the Apache License, Version 2.0.
"""Token Turing Machine (arXiv 2211.09119): a memory of fixed size that is read, processed and written step by step.

Equal to the official code (google-research/scenic, `projects/token_turing`), oddities included:
- the memory is rewritten at each step, without a residual from old to new;
- memory, inputs and outputs are joined in this order, and reading sees no outputs;
- `processing_unit="transformer"` always adds its own position table, whatever `use_positional_embedding` says, and
  `"mlp"` has no residuals;
- latent queries have eight heads, whatever `num_attention_heads` says.

What differs: input tokens can be masked (official code has no masks), and with `dropout` above 0 the blocks of the
`"transformer"` unit drop where those of this package's ViTs do.

Shape legend: B batch, M memory tokens, N input tokens of a step, R output tokens of a step (m of the Combiner),
D width, W write slots.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention_mirasol import MirasolEncoderLayer, eager_attention_forward
from .base_mirasol import fill_normal
from .configuration_mirasol import MirasolCombinerConfig

# constants of the official code, whatever the configuration says
SUMMARY_BOTTLENECK = 64
TOKEN_MIXING_WIDTH = 128
LATENT_QUERY_HEADS = 8
WRITE_SLOTS = 8
TABLE_STD = 0.02
MLP_BIAS_STD = 1e-6


class MirasolXavierLinear(nn.Linear):
    """A linear layer with the official first values: Xavier uniform, biases next to zero."""

    def init_own_tensors(self, std: float) -> None:
        init.xavier_uniform_(self.weight)
        init.normal_(self.bias, std=MLP_BIAS_STD)


class MirasolLecunLinear(nn.Linear):
    """A linear layer with Flax's default first values: LeCun normal, cut at two standard deviations; biases zero."""

    def init_own_tensors(self, std: float) -> None:
        # 0.8796… is the standard deviation of a unit normal cut at ±2
        deviation = math.sqrt(1 / self.in_features) / 0.87962566103423978
        init.trunc_normal_(self.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        init.zeros_(self.bias)


class MirasolMemoryMLP(nn.Module):
    """Linear, activation, linear, with dropout after each (scenic's `MlpBlock`)."""

    def __init__(
        self, config: MirasolCombinerConfig, inputs: int, hidden: int, outputs: int, dropout: float | None = None
    ) -> None:
        super().__init__()
        self.up_proj = MirasolXavierLinear(inputs, hidden)
        self.down_proj = MirasolXavierLinear(hidden, outputs)
        self.act_fn = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.dropout if dropout is None else dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.down_proj(self.dropout(self.act_fn(self.up_proj(hidden_states)))))


class MirasolTokenLearner(nn.Module):
    """Summary by learned weights (TokenLearner v1.1): each output is a weighted mean of the tokens."""

    def __init__(self, config: MirasolCombinerConfig, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MirasolMemoryMLP(config, config.hidden_size, SUMMARY_BOTTLENECK, num_outputs)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """[B, N, D] and a mask [B, N], False at tokens that get no weight → [B, outputs, D]."""
        logits = self.mlp(self.norm(tokens))
        if mask is not None:
            logits = logits.masked_fill(~mask[..., None], torch.finfo(logits.dtype).min)
        return softmax_over_tokens(logits, tokens.dtype).transpose(1, 2) @ tokens


def softmax_over_tokens(logits: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Softmax of [B, N, k] over N, taken in float32 at least and returned in `dtype`."""
    return logits.softmax(dim=1, dtype=torch.promote_types(dtype, torch.float32)).to(dtype)


class MirasolLatentQueries(nn.Module):
    """Summary by attention: learned queries look at the tokens."""

    def __init__(self, config: MirasolCombinerConfig, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // LATENT_QUERY_HEADS
        self.num_key_value_groups = 1
        self.scaling = self.head_dim**-0.5
        self.is_causal = False  # a missing attribute would read as causal to SDPA
        self.queries = nn.Parameter(torch.zeros(1, num_outputs, config.hidden_size))
        self.q_proj = MirasolLecunLinear(config.hidden_size, config.hidden_size)
        self.k_proj = MirasolLecunLinear(config.hidden_size, config.hidden_size)
        self.v_proj = MirasolLecunLinear(config.hidden_size, config.hidden_size)
        self.o_proj = MirasolLecunLinear(config.hidden_size, config.hidden_size)

    def init_own_tensors(self, std: float) -> None:
        fill_normal(self.queries, TABLE_STD)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """[B, N, D] and a mask [B, N], False at tokens that nobody attends to → [B, outputs, D]."""
        batch, slots = tokens.shape[0], self.queries.shape[1]
        attention_mask = None
        if mask is not None:
            queries = self.queries.to(tokens.dtype).expand(batch, -1, -1)
            attention_mask = create_bidirectional_mask(self.config, queries, mask, encoder_hidden_states=tokens)
        # the queries are the same for every clip, so they are projected once
        query = self.q_proj(self.queries.to(tokens.dtype)).expand(batch, -1, -1)
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for states in (query, self.k_proj(tokens), self.v_proj(tokens))
        )
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention(self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling)
        return self.o_proj(output.reshape(batch, slots, -1))


class MirasolAddEraseWrite(nn.Module):
    """Writes by erasing and adding at eight slots, as the official code does it, known flaws included.

    `new[i] = old[i] · Π_k(1 − s[i,k]·e[k]) + mean_k(1 − s[i,k]·a[k])`: the sum is not the `Σ_k s[i,k]·a[k]` of a
    Neural Turing Machine, so that about 1 is added to every element at every step, and *e* passes no sigmoid. *s*
    depends on the old memory token alone: from a memory of zeros, where every stream begins, all M memory tokens stay
    identical for ever, and the memory carries one vector. Prefer `"tl"` or `"tl_mha"`.
    """

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__()
        width, outputs = config.hidden_size, config.num_output_tokens
        self.memory_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.slot_mlp = self.build_mlp(config, width, WRITE_SLOTS)
        self.erase_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.erase_token_mlp = self.build_mlp(config, outputs, WRITE_SLOTS)
        self.erase_channel_mlp = self.build_mlp(config, width, width)
        self.add_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.add_token_mlp = self.build_mlp(config, outputs, WRITE_SLOTS)
        self.add_channel_mlp = self.build_mlp(config, width, width)

    @staticmethod
    def build_mlp(config: MirasolCombinerConfig, inputs: int, outputs: int) -> MirasolMemoryMLP:
        # without dropout: the official unit passes this module no rate
        return MirasolMemoryMLP(config, inputs, SUMMARY_BOTTLENECK, outputs, dropout=0.0)

    def forward(self, memory: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Memory [B, M, D] and outputs [B, R, D] → the new memory [B, M, D]."""
        slots = softmax_over_tokens(self.slot_mlp(self.memory_norm(memory)), memory.dtype)  # [B, M, W]
        erase = mix(outputs, self.erase_norm, self.erase_token_mlp, self.erase_channel_mlp)  # [B, W, D]
        add = mix(outputs, self.add_norm, self.add_token_mlp, self.add_channel_mlp)
        kept = (1 - slots[..., None] * erase[:, None]).prod(dim=2)
        return memory * kept + (1 - slots @ add / WRITE_SLOTS)


def mix(
    tokens: torch.Tensor, norm: nn.LayerNorm, token_mlp: MirasolMemoryMLP, channel_mlp: MirasolMemoryMLP
) -> torch.Tensor:
    """[B, R, D] → [B, W, D]: over the tokens, then over the channels."""
    return channel_mlp(token_mlp(norm(tokens).transpose(1, 2)).transpose(1, 2))


class MirasolTransformerUnit(nn.Module):
    """Processes with a learned position table and pre-norm Transformer blocks (scenic's ViT `Encoder`)."""

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, config.num_output_tokens, config.hidden_size))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(MirasolEncoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def init_own_tensors(self, std: float) -> None:
        fill_normal(self.positions, TABLE_STD)
        for module in self.layers.modules():  # shared with the towers, which start otherwise
            if isinstance(module, nn.Linear):
                init.xavier_uniform_(module.weight)
        for layer in self.layers:
            assert isinstance(layer, MirasolEncoderLayer)
            for linear in (layer.mlp.up_proj, layer.mlp.down_proj):
                init.normal_(linear.bias, std=MLP_BIAS_STD)

    def forward(self, tokens: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        hidden_states = self.dropout(tokens + self.positions.to(tokens.dtype))
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return self.norm(hidden_states)


class MirasolMixerBlock(nn.Module):
    """Mixes tokens, then channels, each with a residual (MLP-Mixer, arXiv 2105.01601)."""

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__()
        width, tokens = config.hidden_size, config.num_output_tokens
        self.token_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.token_mlp = MirasolMemoryMLP(config, tokens, TOKEN_MIXING_WIDTH, tokens)
        self.channel_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.channel_mlp = MirasolMemoryMLP(config, width, config.intermediate_size, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.token_mlp(self.token_norm(tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.channel_mlp(self.channel_norm(tokens))


class MirasolMixerUnit(nn.Module):
    """Processes with MLP-Mixer blocks."""

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MirasolMixerBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class MirasolMLPUnit(nn.Module):
    """Processes each token by itself, without residuals."""

    def __init__(self, config: MirasolCombinerConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(config.num_hidden_layers))
        self.mlps = nn.ModuleList(
            MirasolMemoryMLP(config, width, config.intermediate_size, width) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, tokens: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        for norm, mlp in zip(self.norms, self.mlps, strict=True):
            tokens = mlp(norm(tokens))
        return self.norm(tokens)


PROCESSING_UNITS: dict[str, Callable[[MirasolCombinerConfig], nn.Module]] = {
    "transformer": MirasolTransformerUnit,
    "mixer": MirasolMixerUnit,
    "mlp": MirasolMLPUnit,
}


class MirasolTokenTuringMachine(nn.Module):
    """One unit, with one set of parameters for all steps: read, process, write.

    Args:
        config: `memory_mode`, `memory_size`, `num_output_tokens` (the official process size), `processing_unit` and,
            for the latter, `num_hidden_layers`, `num_attention_heads`, `intermediate_size` (the official MLP width).
        num_input_tokens: N, which `use_positional_embedding` fixes; needed only with it.

    Example:
        >>> memory = unit.initial_memory(inputs)
        >>> for step in range(inputs.shape[1]):  # inputs [B, steps, N, D]
        ...     outputs, memory = unit.step(memory, inputs[:, step])
    """

    def __init__(self, config: MirasolCombinerConfig, num_input_tokens: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.num_input_tokens = num_input_tokens
        summary = MirasolLatentQueries if config.memory_mode == "tl_mha" else MirasolTokenLearner
        self.read = summary(config, config.num_output_tokens)
        self.process = PROCESSING_UNITS[config.processing_unit](config)
        self.write: nn.Module
        if config.memory_mode == "tl_add_erase":
            self.write = MirasolAddEraseWrite(config)
        else:
            self.write = summary(config, config.memory_size)
        self.add_position_tables()

    def add_position_tables(self) -> None:
        config, count = self.config, self.num_input_tokens
        self.read_positions: torch.Tensor | None = None
        self.write_positions: torch.Tensor | None = None
        if not config.use_positional_embedding:
            return
        if count is None:
            raise ValueError("combiner_config.use_positional_embedding=True needs num_input_tokens")
        length = config.memory_size + count
        self.read_positions = nn.Parameter(torch.zeros(1, length, config.hidden_size))
        table = torch.zeros(1, length + config.num_output_tokens, config.hidden_size)
        if config.memory_mode == "tl_add_erase":
            # official checkpoints hold this table, but nothing reads it: no parameter, so that all of them learn
            del self.write_positions
            self.register_buffer("write_positions", table)
        else:
            self.write_positions = nn.Parameter(table)

    def init_own_tensors(self, std: float) -> None:
        for table in (self.read_positions, self.write_positions):
            if table is not None:
                init.normal_(table, std=TABLE_STD)

    def initial_memory(self, inputs: torch.Tensor) -> torch.Tensor:
        """Zeros [B, M, D] for inputs [B, …, D], where the official code starts."""
        return inputs.new_zeros(inputs.shape[0], self.config.memory_size, self.config.hidden_size)

    def step(
        self,
        memory: torch.Tensor,
        inputs: torch.Tensor,
        input_mask: torch.Tensor | None = None,
        input_slots: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads memory and inputs, processes what was read, and writes the memory anew.

        Args:
            memory: [B, M, D].
            inputs: [B, N, D].
            input_mask: [B, N], 0 at inputs that must not enter; they get no weight in reading and writing.
            input_slots: with position tables, which of the `num_input_tokens` places the N inputs take; all in order
                by default.

        Returns:
            The step's outputs [B, R, D] and the new memory [B, M, D].

        Raises:
            ValueError: shapes that do not fit the configuration or each other.
        """
        return self(memory, inputs, input_mask, input_slots, **kwargs)

    def forward(
        self,
        memory: torch.Tensor,
        inputs: torch.Tensor,
        input_mask: torch.Tensor | None = None,
        input_slots: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.check_step(memory, inputs, input_mask, input_slots)
        mask = None
        if input_mask is not None:
            mask = nn.functional.pad(input_mask.bool(), (memory.shape[1], 0), value=True)
        seen = torch.cat((memory, inputs), dim=1)
        read = self.read(self.add_positions(seen, self.read_positions, input_slots), mask)
        outputs = self.process(read, **kwargs)
        if self.config.memory_mode == "tl_add_erase":
            return outputs, self.write(memory, outputs)
        if mask is not None:
            mask = nn.functional.pad(mask, (0, outputs.shape[1]), value=True)
        written = torch.cat((seen, outputs), dim=1)
        return outputs, self.write(self.add_positions(written, self.write_positions, input_slots), mask)

    def add_positions(
        self, tokens: torch.Tensor, table: torch.Tensor | None, input_slots: Sequence[int] | None
    ) -> torch.Tensor:
        """Adds a table to [memory, inputs (, outputs)], taking of its input places only those that are filled."""
        if table is None:
            return tokens
        if input_slots is not None and len(input_slots) != self.num_input_tokens:
            assert self.num_input_tokens is not None
            first, last = self.config.memory_size, self.config.memory_size + self.num_input_tokens
            places = torch.tensor(input_slots, dtype=torch.long, device=table.device) + first
            table = torch.cat((table[:, :first], table[:, places], table[:, last:]), dim=1)
        return tokens + table.to(tokens.dtype)

    def check_step(
        self,
        memory: torch.Tensor,
        inputs: torch.Tensor,
        input_mask: torch.Tensor | None,
        input_slots: Sequence[int] | None,
    ) -> None:
        config = self.config
        expected = (inputs.shape[0], config.memory_size, config.hidden_size)
        if inputs.ndim != 3 or inputs.shape[2] != config.hidden_size or tuple(memory.shape) != expected:
            raise ValueError(
                f"memory {tuple(memory.shape)} and inputs {tuple(inputs.shape)}: expected [B, {expected[1]}, "
                f"{expected[2]}] and [B, N, {expected[2]}] by combiner_config.memory_size and .hidden_size"
            )
        if input_mask is not None and input_mask.shape != inputs.shape[:2]:
            raise ValueError(f"input_mask {tuple(input_mask.shape)} does not fit inputs {tuple(inputs.shape)}")
        places = self.num_input_tokens if input_slots is None else len(input_slots)
        if config.use_positional_embedding and inputs.shape[1] != places:
            raise ValueError(
                f"inputs have {inputs.shape[1]} tokens, but combiner_config.use_positional_embedding=True fixes them "
                f"to {places}"
            )
