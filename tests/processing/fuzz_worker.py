"""Runs mutated files through the processor, one after the other; started by the fuzz test in processes of its own.

Prints `start N` before and `done N OUTCOME` after each mutant, so that the one that crashes or hangs is known.
"""

import io
import random
import resource
import sys
import warnings
from pathlib import Path

HEADROOM_BYTES = 1 << 30


class Pipe(io.RawIOBase):
    """Bytes that come once and in order."""

    def __init__(self, content):
        self.inner = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.inner.readinto(memoryview(buffer)[:4096])


def mutant(number: int, files: list[bytes]) -> bytes:
    """File number `number` of the endless seeded series."""
    chance = random.Random(number)
    content = bytearray(chance.choice(files))
    for _ in range(chance.randint(1, 3)):
        MUTATIONS[chance.choice(list(MUTATIONS))](chance, content, files)
    return bytes(content)


def _place(chance, content):
    # Half of the damage goes where the headers usually are.
    ends = (len(content), len(content), min(len(content), 1500))
    return chance.randrange(max(1, chance.choice(ends)))


def _flip(chance, content, files):
    for _ in range(chance.choice((1, 4, 30))):
        if content:
            content[_place(chance, content)] ^= 1 << chance.randrange(8)


def _cut(chance, content, files):
    del content[_place(chance, content) :]


def _splice(chance, content, files):
    head = chance.choice(files)
    size = chance.choice((8, 64, 700, len(head) // 2))
    content[: chance.choice((0, size))] = head[:size]


def _number(chance, content, files):
    at = _place(chance, content)
    value = chance.choice((0, 1, 0x7F, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chance.getrandbits(32)))
    content[at : at + 4] = value.to_bytes(4, chance.choice(("big", "little")))


def _repeat(chance, content, files):
    at = _place(chance, content)
    content[at:at] = content[at : at + chance.choice((4, 188, 2000))] * chance.choice((1, 2, 50))


def _remove(chance, content, files):
    at = _place(chance, content)
    del content[at : at + chance.choice((1, 4, 188, 1000))]


def _fill(chance, content, files):
    at, size = _place(chance, content), chance.choice((16, 500))
    content[at : at + size] = bytes([chance.choice((0, 255))]) * size


MUTATIONS = {
    "flip": _flip,
    "cut": _cut,
    "splice": _splice,
    "number": _number,
    "repeat": _repeat,
    "remove": _remove,
    "fill": _fill,
}


def outcome(processor, content: bytes, number: int) -> str:
    """What the processor makes of it; an error must be one that the documentation names."""
    try:
        if number % 4 == 0:
            chunks = processor.iter_chunks(Pipe(content), chunk_seconds=0.5, end=20.0)
            return "chunks" if all(_finite(chunk) for chunk in chunks) else "wrong: values that are not finite"
        return "result" if _finite(processor(videos=content, num_chunks=2)) else "wrong: values that are not finite"
    except (ValueError, OSError) as error:
        named = " bytes>" in str(error) or "<file object" in str(error) or "start=" in str(error)
        return "error" if named and "\n" not in str(error) else f"wrong: {type(error).__name__}: {error}"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}".replace("\n", " ")


def _finite(tensors) -> bool:
    return all(bool(value.isfinite().all()) for value in tensors.values())


def _processor():
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
    from mirasol_hf.processing.processing_mirasol import MirasolProcessor
    from mirasol_hf.processing.video_processing_mirasol import MirasolVideoProcessor

    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="<pad>")
    return MirasolProcessor(MirasolVideoProcessor(size=32, num_frames=4), MirasolFeatureExtractor(), tokenizer)


def main(folder: str, first: str, last: str, step: str) -> None:
    warnings.simplefilter("ignore")
    files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    processor = _processor()
    processor(videos=files[0], num_chunks=2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM_BYTES, used + HEADROOM_BYTES))
    for number in range(int(first), int(last), int(step)):
        print("start", number, flush=True)
        print("done", number, outcome(processor, mutant(number, files), number), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
