"""The files with an oracle, where they exist: facts of the good ones, outcome of the hostile ones."""

import warnings

import numpy as np
import pytest
import torch
from media_maker import CORNERS

from mirasol_hf.processing.chunk_plan_mirasol import plan_chunks
from mirasol_hf.processing.media_mirasol import MediaFile, probe_media, read_media


def test_good_files_are_what_the_manifest_says(shared_media):
    folder, entries = shared_media
    wrong = []
    for name, entry in entries.items():
        if entry["cls"] != "good":
            continue
        facts = probe_media(folder / name)
        wrong += [f"{name}: {what}" for what in (*_differences(facts, entry), *facts["problems"])]
    assert not wrong


def _differences(facts, entry):
    if abs(facts["duration"] - entry["duration_s"]) > entry["duration_tol_s"]:
        yield f"duration {facts['duration']} instead of {entry['duration_s']}"
    video, audio = entry.get("video"), entry.get("audio")
    if (video is None) != (facts["video"] is None) or (audio is None) != (facts["audio"] is None):
        yield "streams"
        return
    if video:
        seen = facts["video"]
        if [seen["width"], seen["height"]] != video["display_size"]:
            yield f"size {seen['width']}x{seen['height']}"
        if seen["frames"] != video["n_frames"]:
            yield f"{seen['frames']} frames instead of {video['n_frames']}"
        if video["avg_fps"] and abs(seen["fps"] - video["avg_fps"]) > 0.01:
            yield f"fps {seen['fps']}"
        if abs(seen["start"] - video["start_t_s"]) > 0.005:
            yield f"start {seen['start']}"
    if audio:
        heard = facts["audio"]
        if (heard["sampling_rate"], heard["channels"]) != (audio["sample_rate"], audio["channels"]):
            yield "format of the sound"
        if abs(heard["start"] - audio["start_t_s"]) > 0.005:
            yield f"start of the sound {heard['start']}"


def test_flashes_and_tones_lie_where_the_oracle_says(shared_media):
    folder, entries = shared_media
    checked, wrong = 0, []
    for name, entry in entries.items():
        events = [e for e in entry.get("events", []) if e.get("flash") and e.get("beep")]
        if entry["cls"] != "good" or not events or name == "long_10min.mp4":
            continue
        clip = read_media(
            folder / name,
            lambda d: plan_chunks(0.0, d, num_chunks=1, frames_per_chunk=max(8, round(d * 120))),
            size=(64, 64),
        )
        begin, wave = clip.audio[0]
        for event in events:
            checked += 1
            flash, beep = _flash_onset(clip, entry, event), _tone_onset(begin, wave, event)
            # A picture is the only evidence for its whole duration, so one frame of tolerance is inherent.
            if flash is None or abs(flash - event["t_s"]) > event["tol_video_s"] + 1e-6:
                wrong.append(f"{name}: flash at {flash} instead of {event['t_s']}")
            if beep is None or abs(beep - event["t_s"]) > event["tol_audio_s"]:
                wrong.append(f"{name}: tone at {beep} instead of {event['t_s']}")
    assert checked > 20 and not wrong


def _flash_onset(clip, entry, event):
    width, height = entry["content"]["render_size"]
    x0, y0, x1, y1 = entry["content"]["patch"]
    rows = slice(y0 * 64 // height + 2, y1 * 64 // height - 2)
    columns = slice(x0 * 64 // width + 2, x1 * 64 // width - 2)
    bright = clip.frames[0][:, rows, columns].mean((1, 2, 3)) > 200
    times = clip.frame_times[0]
    near = np.flatnonzero(bright & (np.abs(times - event["t_s"]) < 0.2))
    return float(times[near[0]]) if len(near) else None


def _tone_onset(begin, wave, event):
    rate = 16000
    first = max(0, round((event["t_s"] - 0.2 - begin) * rate))
    level = np.abs(wave[first : first + round(0.5 * rate)])
    loud = np.flatnonzero(level > 0.5 * level.max()) if len(level) and level.max() > 0.02 else []
    return begin + (first + int(loud[0])) / rate if len(loud) else None


def test_every_frame_is_upright_in_its_colours_and_at_its_time(shared_media):
    folder, entries = shared_media
    checked, wrong = 0, []
    for name, entry in entries.items():
        content = entry.get("content") or {}
        if entry["cls"] != "good" or not entry.get("video") or entry.get("no_visual") or name == "long_10min.mp4":
            continue
        width, height = content["render_size"]
        with MediaFile(folder / name) as media:
            reader = media.video_reader()
            frames, times = reader.read(reader.times + 1e-4, height, width)
        checked += 1
        # JPEG at this quality misses saturated colours by some steps.
        off = _corner_error(frames[0].astype(int), content["c"] // 2)
        if off > (20 if "mjpeg" in name else entry.get("colour_tol", 14)):
            wrong.append(f"{name}: corners off by {off}")
        if "barcode" in content and content["fps_nominal"] is not None:
            rate = content["fps_nominal"][0] / content["fps_nominal"][1]
            first = entry["content_t0_pts_s"] - entry["timeline_origin_s"]
            expected = np.round((times - first) * rate).astype(int)
            read = np.array([_bar_code(frame, content["barcode"]) for frame in frames])
            if not entry.get("no_visual_after") and (read != expected).any():
                wrong.append(f"{name}: bar codes {read[:5]} instead of {expected[:5]}")
    assert checked > 30 and not wrong


def _corner_error(frame, inset):
    corners = {"tl": frame[inset, inset], "tr": frame[inset, -inset]}
    corners |= {"bl": frame[-inset, inset], "br": frame[-inset, -inset]}
    return max(int(np.abs(corners[name] - colour).max()) for name, colour in CORNERS.items())


def _bar_code(frame, code):
    row = frame[code["y0"] + code["bs"] // 2].mean(-1)
    bits = [row[int(code["x0"] + (bit + 0.5) * code["bs"])] > 128 for bit in range(code["bits"])]
    return sum(int(bit) << (code["bits"] - 1 - place) for place, bit in enumerate(bits))


def test_streams_give_what_files_give(shared_media, processor):
    folder, entries = shared_media
    wrong = []
    for name, entry in entries.items():
        if entry["cls"] != "good" or name == "long_10min.mp4":
            continue
        whole = processor(videos=folder / name, num_chunks=5, return_timestamps=True)
        seconds = float(whole["chunk_seconds"][0, -1, 1]) / 5
        parts = list(processor.iter_chunks(folder / name, chunk_seconds=seconds, return_timestamps=True))
        for key, value in whole.items():
            streamed = torch.cat([part[key] for part in parts], dim=1)
            if streamed.shape != value.shape or (streamed - value).abs().max() > 1e-9:
                wrong.append(f"{name}: {key}")
    assert not wrong


def test_hostile_files_end_in_an_accepted_way(shared_media):
    folder, entries = shared_media
    wrong = []
    for name, entry in entries.items():
        if entry["cls"] == "good":
            continue
        outcome = _outcome(folder / name)
        if outcome.split(":")[0] not in entry["accept"]:
            wrong.append(f"{name}: {outcome}, accepted {entry['accept']}")
    assert not wrong


def _outcome(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read_media(path, lambda d: plan_chunks(0.0, max(d, 0.04), num_chunks=4, frames_per_chunk=8), size=(32, 32))
        except (ValueError, OSError) as error:
            return "error" if path.name in str(error) else f"an error that does not name the file: {error}"
    return "partial" if caught else "ok"


@pytest.mark.slow
def test_ten_minutes_in_bounded_time(shared_media):
    folder, _ = shared_media
    clip = read_media(folder / "long_10min.mp4", lambda d: plan_chunks(0.0, d, num_chunks=16, frames_per_chunk=8))
    assert clip.video_mask.all() and all(len(data) == 600000 for _, data in clip.audio)
