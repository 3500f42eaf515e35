"""Decoding in processes made by fork, after their parent has computed with several threads."""

import os
import subprocess
import sys
from pathlib import Path

# The operation before the fork starts OpenMP's threads, which the workers do not have.
SCRIPT = """
import sys
import torch
from datasets import Dataset
from transformers import AutoProcessor
import mirasol_hf
from mirasol_hf.data.media_dataset import MediaMap

torch.set_num_threads(2)
torch.zeros(2**22, dtype=torch.uint8).to(torch.float32)
processor = AutoProcessor.from_pretrained(mirasol_hf.EMBEDDED_MODEL)
rows = Dataset.from_dict({"video": [str(mirasol_hf.SAMPLE_CLIP)] * 2})
for decode in (MediaMap(processor), lambda batch: processor(videos=batch["video"])):
    mark = sys.argv.pop()
    mapped = rows.map(decode, batched=True, batch_size=1, num_proc=2, remove_columns=["video"], new_fingerprint=mark)
    print(len(mapped))
print(torch.get_num_threads())
"""


def test_workers_do_not_wait_for_threads_that_they_do_not_have(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, str(script), "first", "second"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "2", "2"]
