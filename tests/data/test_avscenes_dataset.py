from pathlib import Path

import pytest
from datasets import Video

from mirasol_hf.data.avscenes import QUESTION_FAMILIES, build_dataset, sample_scene, scene_to_bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("avscenes")


@pytest.fixture(scope="module")
def dataset(folder):
    return build_dataset("test", 2, max_seconds=5, directory=folder)


def test_a_row_is_a_question_and_rows_share_the_file_of_their_clip(dataset, folder):
    assert dataset.features["video"] == Video(decode=False)
    assert set(dataset.column_names) == {
        *("video", "scene_index", "question", "context", "answer", "family", "kind"),
    }
    assert len(dataset) == 12 and dataset["scene_index"][:] == [0] * 6 + [1] * 6
    assert len(list(folder.iterdir())) == 2
    for index in range(2):
        scene = sample_scene("test", index, max_seconds=5)
        rows = dataset.select(range(6 * index, 6 * index + 6))
        paths = {row["video"]["path"] for row in rows}
        assert len(paths) == 1 and Path(paths.pop()).read_bytes() == scene_to_bytes(scene)
        asked = [(row["question"], row["context"], row["answer"], row["family"], row["kind"]) for row in rows]
        assert asked == [(q.question, q.context, q.answer, q.family, q.kind) for q in scene.questions(limit=6)]
        assert set(rows["family"]) == set(QUESTION_FAMILIES)


def test_files_are_written_once_and_told_apart(dataset, folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = build_dataset("test", 2, max_seconds=5, directory=folder)
    assert again.to_dict() == dataset.to_dict()
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    written = []
    monkeypatch.setattr("mirasol_hf.data.dataset.write_scene", lambda scene, path: written.append(path))
    build_dataset("test", 2, max_seconds=6, directory=folder)
    assert len(written) == 2 and not set(written) & set(before)


def test_settings_reach_the_scenes_and_the_questions(folder, monkeypatch):
    monkeypatch.setattr("mirasol_hf.data.dataset.write_scene", lambda scene, path: None)
    done = []
    rows = build_dataset(
        *("train", 3, 2),
        first_scene=5,
        families=["heard"],
        question_seed=9,
        directory=folder,
        progress=lambda number, total: done.append((number, total)),
    )
    assert rows["family"][:] == ["heard"] * 6 and rows["scene_index"][:] == [5, 5, 6, 6, 7, 7]
    assert rows["question"][0] == sample_scene("train", 5).questions(families=["heard"], seed=9)[0].question
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert len(build_dataset("train", 1, None, directory=folder)) == len(sample_scene("train", 0).questions())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "dev"}, "split"),
        ({"num_scenes": 0}, "num_scenes"),
        ({"num_scenes": 1.0}, "num_scenes"),
        ({"questions_per_scene": 0}, "limit"),
        ({"first_scene": -1}, "index"),
        ({"families": ["sung"]}, "families"),
        ({"min_seconds": 1}, "min_seconds"),
    ],
)
def test_bad_arguments_are_named_before_a_file_is_written(arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        build_dataset(**{"split": "train", "num_scenes": 1, "directory": tmp_path, **arguments})
    assert list(tmp_path.iterdir()) == []
