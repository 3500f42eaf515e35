"""`mirasol probe --plot`: what is sampled, where it stands on the time axis, and what is refused."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import mirasol_hf
from mirasol_hf.cli.probe_plot import _Clip

pytest.importorskip("matplotlib")


def test_files_share_one_plot(mirasol, scene_clip, tmp_path) -> None:
    plot = tmp_path / "sheet.png"
    ran = mirasol("probe", mirasol_hf.SAMPLE_CLIP, scene_clip, "--json", "--plot", plot)
    assert (ran.code, ran.err) == (0, "")
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert len(found) == 2 and all(entry["video"]["frames"] > 1 for entry in found)
    one = tmp_path / "one.png"
    assert f"plot: {one}" in mirasol("probe", scene_clip, "--plot", one).out
    assert Image.open(plot).height > 1.5 * Image.open(one).height
    assert np.asarray(Image.open(plot).convert("L")).std() > 20


def test_pictures_and_spectrum_are_those_of_the_file(scene_clip) -> None:
    clip = _Clip(str(scene_clip), 16)
    frames, times, mask = clip.pictures
    assert frames.shape[:2] == times.shape == (8, 2) and mask.all()
    assert (times >= clip.plan.windows[:, :1] - 1 / 15).all() and (times <= clip.plan.windows[:, 1:]).all()
    assert clip.spectrum.shape == (8 * 128, 64)
    assert np.isfinite(clip.spectrum).all()


def test_sound_alone_and_pictures_alone_are_drawn(mirasol, scene_clip, tmp_path) -> None:
    import av

    silent, sound = tmp_path / "silent.mp4", tmp_path / "sound.mp4"
    for path, kind in ((silent, "video"), (sound, "audio")):
        with av.open(str(scene_clip)) as source, av.open(str(path), "w") as out:
            stream = next(stream for stream in source.streams if stream.type == kind)
            copy = out.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
    plot = tmp_path / "both.png"
    assert mirasol("probe", silent, sound, "--plot", plot).code == 0
    assert plot.stat().st_size > 1000
    assert _Clip(str(sound), 16).pictures is None
    assert _Clip(str(silent), 16).spectrum is None


def test_bad_requests_are_refused(refused, mirasol, scene_clip, tmp_path, monkeypatch) -> None:
    assert ".png" in refused("probe", scene_clip, "--plot", tmp_path / "a.jpg")
    assert "absent" in refused("probe", scene_clip, "--plot", tmp_path / "absent" / "a.png")
    assert "--frames 12" in refused("probe", scene_clip, "--plot", tmp_path / "a.png", "--frames", "12")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "mirasol_hf[plots]" in refused("probe", scene_clip, "--plot", tmp_path / "a.png")
    assert json.loads(mirasol("probe", scene_clip, "--json").out)["problems"] == []
