"""The 3B preset for real: one forward and one generate of 128 frames in bfloat16, in a process of its own."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys, time
import torch
from transformers.initialization import no_init_weights
from mirasol_hf import MirasolConfig, MirasolForConditionalGeneration

preset, chunks = sys.argv[1], 16
started = time.perf_counter()
config = MirasolConfig.from_preset(preset)
torch.set_default_dtype(torch.bfloat16)
with no_init_weights():
    model = MirasolForConditionalGeneration(config).eval()
model.tie_weights()
noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
noise = (noise * 0.02).bfloat16()
with torch.no_grad():
    for name, value in model.named_parameters():  # the same noise over and over: drawing 3e9 values takes minutes
        if value.ndim == 1:
            value.fill_(float("norm" in name and name.endswith("weight")))
            continue
        flat = value.view(-1)
        for first in range(0, flat.numel(), noise.numel()):
            part = flat[first : first + noise.numel()]
            part.copy_(noise[: part.numel()])
torch.set_default_dtype(torch.float32)
built = time.perf_counter()

video, audio, text = config.video_config, config.audio_config, config.text_config
generator = torch.Generator().manual_seed(1)
frames = torch.randn(1, chunks, video.num_frames, 3, video.image_size, video.image_size, generator=generator)
sound = torch.randn(1, chunks, audio.num_steps, audio.num_mel_bins, generator=generator)
prompt = torch.randint(3, text.vocab_size, (1, 32), generator=generator)
with torch.inference_mode():
    outputs = model(
        input_ids=prompt, labels=prompt, pixel_values_videos=frames.bfloat16(), input_features=sound.bfloat16()
    )
    forwarded = time.perf_counter()
    tokens = model.generate(
        input_ids=prompt,
        media_hidden_states=outputs.media_hidden_states,
        media_attention_mask=outputs.media_attention_mask,
        max_new_tokens=16,
        min_new_tokens=16,
        do_sample=False,
    )
losses = ("text_loss", "latent_loss", "video_reconstruction_loss", "audio_reconstruction_loss")
print(json.dumps({
    "parameters": sum(value.numel() for value in model.parameters()),
    "dtypes": sorted({str(value.dtype) for value in model.parameters()}),
    "frames": chunks * video.num_frames,
    "image_size": video.image_size,
    "media_hidden_states": list(outputs.media_hidden_states.shape),
    "logits": list(outputs.logits.shape),
    "finite": bool(outputs.logits.isfinite().all() and outputs.media_hidden_states.isfinite().all()),
    "spread": outputs.media_hidden_states.float().std(dim=1).mean().item(),
    "losses": {name: outputs[name].item() for name in losses},
    "new_tokens": tokens.shape[1] - prompt.shape[1],
    "build_seconds": round(built - started, 1),
    "forward_seconds": round(forwarded - built, 1),
    "generate_seconds": round(time.perf_counter() - forwarded, 1),
    "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
}))
"""


def run(preset: str) -> dict:
    done = subprocess.run([sys.executable, "-c", SCRIPT, preset], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)  # times and memory, shown by -rP
    return json.loads(done.stdout.splitlines()[-1])


def check(facts: dict) -> None:
    assert facts["finite"] and facts["spread"] > 1e-2  # the features differ along the clip
    assert facts["new_tokens"] == 16
    assert facts["frames"] == 128
    assert facts["dtypes"] == ["torch.bfloat16"]
    assert all(value > 0 for value in facts["losses"].values())


def test_the_script_with_the_tiny_preset() -> None:
    facts = run("tiny")
    check(facts)
    assert facts["media_hidden_states"] == [1, 16 * 4, 128]


@pytest.mark.slow
def test_three_billion_parameters_run_within_20_gib() -> None:
    facts = run("3b")
    check(facts)
    assert facts["image_size"] == 224
    assert facts["parameters"] == pytest.approx(3.0e9, rel=0.02)
    assert facts["media_hidden_states"] == [1, 16 * 32, 2048]
    assert facts["logits"] == [1, 32, 32_000]
    assert facts["peak_gib"] < 20
