"""Keyword arguments that nothing takes: refused, since without effect a misspelt option would go unnoticed."""

import difflib
import inspect
from collections.abc import Collection, Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.processing_utils import TextKwargs

# how alike two names are at least when one is taken for the other misspelt (ratio of difflib's SequenceMatcher)
_MISSPELT = 0.9

# what the library takes, or hands on, when it loads a part of a processor from a folder or from the Hub
LOADING_KEYWORDS = frozenset(
    {
        "backend",
        "cache_dir",
        "code_revision",
        "config",
        "force_download",
        "local_files_only",
        "proxies",
        "return_unused_kwargs",
        "revision",
        "subfolder",
        "token",
        "trust_remote_code",
        "use_fast",
    }
)

# options of the library's tokenizers, which take any keyword and therefore name few in their signatures
_TOKENIZER_KEYWORDS = frozenset(TextKwargs.__annotations__) | {
    *PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES,
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "additional_special_tokens",
    "chat_template",
    "clean_up_tokenization_spaces",
    "extra_special_tokens",
    "from_slow",
    "gguf_file",
    "model_input_names",
    "model_max_length",
    "split_special_tokens",
    "tokenizer_file",
    "tokenizer_object",
    "tokenizer_type",
    "truncation_side",
}


def tokenizer_keywords(tokenizer: type) -> set[str]:
    """Names of what a tokenizer of this class takes when it is loaded."""
    makers = (vars(cls)["__init__"] for cls in tokenizer.__mro__ if "__init__" in vars(cls))
    signatures = (inspect.signature(maker) for maker in makers)
    return {*_TOKENIZER_KEYWORDS, *(name for signature in signatures for name in signature.parameters)}


def refuse_unknown(owner: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises TypeError for names that are not known, each with the known name that is most like it.

    Names that begin with an underscore are the library's own messages to itself.
    """
    unknown = sorted(name for name in given if name not in known and not name.startswith("_"))
    if unknown:
        alike = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
        hints = [name + (f" (did you mean {near[0]}?)" if near else "") for name, near in alike.items()]
        raise TypeError(f"{owner} does not know the keyword {', '.join(hints)}")


def refuse_misspelt(owner: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises TypeError for names that are nearly a known one.

    For calls by the library, which hands all keywords of a user to each of several classes: a name that is unlike all
    of ours may be meant for another.
    """
    refuse_unknown(owner, [name for name in given if most_alike(name, known)], known)


def most_alike(name: str, known: Iterable[str]) -> str | None:
    """The known name that this one is, or is taken for when it is misspelt; None where it is unlike all."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, _MISSPELT)), None)


def check_loading(owner: str, given: dict[str, Any], known: Collection[str]) -> None:
    """Raises TypeError for keywords of `from_pretrained` that have no effect on a part of a processor.

    A user's own call may hold what the part and the loading know. `AutoProcessor`, a processor or a pipeline, which
    have checked theirs or cannot tell whose they are, say so by `_from_auto` or `_from_pipeline`.
    """
    if given.get("return_unused_kwargs"):
        return
    if given.get("_from_auto") or given.get("_from_pipeline"):
        refuse_misspelt(owner, given, {*known, *LOADING_KEYWORDS})
    else:
        refuse_unknown(owner, given, {*known, *LOADING_KEYWORDS})
