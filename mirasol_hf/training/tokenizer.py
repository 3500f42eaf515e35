"""The small byte-level tokenizer of models that are trained from scratch.

Byte-level pieces cover every text, so nothing maps to an unknown token; NFKC and lower case keep the vocabulary of a
small model small. The specials are `<pad>` 0, `<bos>` 1 and `<eos>` 2; `<bos>` is put before every text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 512, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Train a lower-casing byte-level BPE tokenizer on `texts`.

    Args:
        texts: the corpus, one document a string.
        vocab_size: upper bound on the vocabulary, specials and the 256 bytes included (at least 259).
        model_max_length: longest sequence the model takes; `None` leaves it unbounded.

    Raises:
        ValueError: if `vocab_size` cannot hold the specials and all bytes.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: a byte-level vocabulary needs at least {SMALLEST_VOCABULARY} "
            f"entries ({len(SPECIAL_TOKENS)} specials and 256 bytes)"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos_id = tokenizer.token_to_id("<bos>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", bos_id)]
    )
    limits = {} if model_max_length is None else {"model_max_length": model_max_length}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **limits,
    )


def avscenes_corpus(num_scenes: int, start: int = 0) -> Iterator[str]:
    """Yield the questions, contexts and answers of `num_scenes` AVScenes training scenes, from scene `start` on."""
    from mirasol_hf.data.avscenes import sample_scene

    for index in range(start, start + num_scenes):
        scene = sample_scene("train", index)
        for question in scene.questions():
            yield question.question
            yield question.answer
            if question.context is not None:
                # The prompt puts a space between context and question.
                yield f"{question.context} {question.question}"
