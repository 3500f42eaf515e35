"""The pipeline with a small random model: forms of input, batches, encoder calls, saving."""

import copy
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from transformers import GenerationConfig, pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils.logging import get_logger

import mirasol_hf
from mirasol_hf.pipelines import video_question_answering_mirasol as module
from mirasol_hf.registration import PIPELINE_TASK

QUESTIONS = ["What colour is the square?", "What is heard while the circle called Ada is on screen?"]


@pytest.fixture(scope="module")
def pipe(random_parts):
    model, processor = random_parts
    return pipeline(PIPELINE_TASK, model=model, processor=processor, device="cpu")


@contextmanager
def counted_encodings(model):
    """Counts how often the media are encoded, and how many clips go through the video tower in all."""
    calls = []
    handle = model.model.video_tower.register_forward_hook(lambda *args: calls.append(1))
    try:
        yield calls
    finally:
        handle.remove()


def assert_same(got, expected):
    assert [entry["answer"] for entry in got] == [entry["answer"] for entry in expected]
    torch.testing.assert_close(
        torch.tensor([entry["score"] for entry in got]).log(),
        torch.tensor([entry["score"] for entry in expected]).log(),
        rtol=1e-5,
        atol=1e-4,
    )


def test_one_question_gives_one_answer_with_its_probability(pipe, scene_clip):
    found = pipe(str(scene_clip), QUESTIONS[0])
    assert len(found) == 1
    assert set(found[0]) == {"answer", "score"}
    assert isinstance(found[0]["answer"], str)
    assert 0 <= found[0]["score"] <= 1


def test_score_is_the_probability_of_the_generated_tokens(pipe, scene_clip):
    found = pipe(scene_clip, QUESTIONS[0], max_new_tokens=3)[0]
    processor, model = pipe.processor, pipe.model
    inputs = processor(text=processor.build_prompt(QUESTIONS[0]), videos=str(scene_clip), return_tensors="pt")
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        length = inputs["input_ids"].shape[1]
        answer = tokens[:, length:]
        extended = {**inputs, "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        logits = model(**extended).logits[:, length - 1 : -1]
    chosen = logits.log_softmax(-1).gather(-1, answer[..., None]).sum()
    assert found["score"] == pytest.approx(chosen.exp().item(), rel=1e-4)


def test_several_questions_encode_the_video_once(pipe, scene_clip):
    with counted_encodings(pipe.model) as calls:
        together = pipe(str(scene_clip), QUESTIONS)
    assert len(calls) == 1
    for question, found in zip(QUESTIONS, together):
        assert_same(found, pipe(str(scene_clip), question))


def test_beams_encode_the_video_once(pipe, scene_clip):
    with counted_encodings(pipe.model) as calls:
        pipe(str(scene_clip), QUESTIONS, top_k=3, max_new_tokens=4)
    assert len(calls) == 1


def test_top_k_gives_different_answers_best_first(pipe, scene_clip):
    # A random model likes tokens that spell nothing; with letters only, different tokens are different texts.
    tokenizer = pipe.tokenizer
    unreadable = [i for i in range(pipe.model.config.text_config.vocab_size) if not tokenizer.decode([i]).isalpha()]
    options = {"suppress_tokens": unreadable}
    found = pipe(str(scene_clip), QUESTIONS[0], top_k=4, max_new_tokens=4, generate_kwargs=options)
    scores = [entry["score"] for entry in found]
    assert 1 < len(found) <= 4
    assert scores == sorted(scores, reverse=True)
    assert len({entry["answer"] for entry in found}) == len(found)


def test_sampled_scores_are_probabilities_of_the_model(pipe, scene_clip):
    greedy = pipe(str(scene_clip), QUESTIONS[0], max_new_tokens=1)
    cold = {"do_sample": True, "temperature": 1e-4, "max_new_tokens": 1}  # three times the most probable token
    assert_same(pipe(str(scene_clip), QUESTIONS[0], top_k=3, generate_kwargs=cold), greedy)


def test_generation_options_of_pipeline_and_call(pipe, scene_clip, random_parts):
    model, processor = random_parts
    made = pipeline(PIPELINE_TASK, model=model, processor=processor, device="cpu", num_beams=3, max_new_tokens=2)
    beams = pipe(str(scene_clip), QUESTIONS[0], generate_kwargs={"num_beams": 3, "max_new_tokens": 2})
    assert_same(made(str(scene_clip), QUESTIONS[0]), beams)
    config = GenerationConfig(num_beams=3, max_new_tokens=2, eos_token_id=2, pad_token_id=0)
    assert_same(pipe(str(scene_clip), QUESTIONS[0], generate_kwargs={"generation_config": config}), beams)
    with pytest.raises(ValueError, match="twice"):
        pipe(str(scene_clip), QUESTIONS[0], max_new_tokens=2, generate_kwargs={"max_new_tokens": 3})


def test_generation_options_are_taken_directly(pipe, scene_clip):
    expected = pipe(str(scene_clip), QUESTIONS[0], generate_kwargs={"num_beams": 3, "max_new_tokens": 2})
    assert_same(pipe(str(scene_clip), QUESTIONS[0], num_beams=3, max_new_tokens=2), expected)
    cold = {"do_sample": True, "temperature": 1e-4, "max_new_tokens": 1}
    assert_same(pipe(str(scene_clip), QUESTIONS[0], **cold), pipe(str(scene_clip), QUESTIONS[0], max_new_tokens=1))
    for misspelt, meant in (("num_beam", "num_beams"), ("do_sampel", "do_sample"), ("num_return_sequences", "top_k")):
        with pytest.raises(TypeError, match=rf"know the keyword {misspelt} \(did you mean {meant}\?\)"):
            pipe(str(scene_clip), QUESTIONS[0], **{misspelt: 3})
    with pytest.raises(TypeError, match="temperatur"):
        pipeline(PIPELINE_TASK, model=pipe.model, processor=pipe.processor, temperatur=2.0)


def test_batch_gives_what_single_calls_give(pipe, scene_clip, other_clip):
    items = [
        {"video": str(scene_clip), "question": QUESTIONS[0]},
        {"video": str(other_clip), "question": QUESTIONS, "context": "The circle is called Ada."},
        {"video": None, "question": "What is Ada?", "context": "Ada is a circle."},
    ]
    batched = pipe(items, batch_size=3)
    for item, found in zip(items, batched):
        alone = pipe(dict(item))
        if isinstance(item["question"], list):
            assert len(found) == len(alone) == 2
            for row, expected in zip(found, alone):
                assert_same(row, expected)
        else:
            assert_same(found, alone)


def test_lists_dicts_and_generators_mean_the_same(pipe, scene_clip, other_clip):
    clips = [str(scene_clip), str(other_clip)]
    from_lists = pipe(clips, QUESTIONS)
    items = [{"video": clip, "question": question} for clip, question in zip(clips, QUESTIONS)]
    from_dicts = pipe(items)
    from_generator = list(pipe((item for item in items), batch_size=2))
    for first, second, third in zip(from_lists, from_dicts, from_generator):
        assert_same(first, second)
        assert_same(first, third)


def test_one_question_serves_a_list_of_videos(pipe, scene_clip, other_clip):
    found = pipe([str(scene_clip), str(other_clip)], QUESTIONS[0])
    assert_same(found[1], pipe(str(other_clip), QUESTIONS[0]))


def test_generator_is_consumed_lazily(pipe, scene_clip):
    taken = []

    def items():
        for number in range(5):
            taken.append(number)
            yield {"video": str(scene_clip), "question": QUESTIONS[0]}

    results = pipe(items())
    next(iter(results))
    assert len(taken) < 5


def test_rows_of_a_datasets_dataset(pipe, scene_clip):
    import datasets

    rows = {"video": [{"bytes": scene_clip.read_bytes(), "path": None}], "question": [QUESTIONS[0]]}
    found = list(pipe(datasets.Dataset.from_dict(rows)))
    assert_same(found[0], pipe(str(scene_clip), QUESTIONS[0]))


def test_rows_of_data_with_all_their_columns(pipe, scene_clip, other_clip):
    """Rows as benchmarks and recipes have them, nulls where a row lacks what others have."""
    import datasets

    row = {
        "id": "1", "video": str(scene_clip), "audio": None, "start": 1.0, "end": None, "use_audio": None,
        "use_video": None, "context": None, "question": QUESTIONS[0], "answer": "red", "answers": None,
        "candidates": ["red", "blue"], "type": "seen",
    }  # fmt: skip
    deaf = {**row, "use_audio": False, "start": None}
    blind = {**row, "use_video": False, "start": None}
    expected = [
        pipe(str(scene_clip), QUESTIONS[0], start=1.0),
        pipe(str(scene_clip), QUESTIONS[0], load_audio_from_video=False),
        pipe(None, QUESTIONS[0], audio=str(scene_clip)),
    ]
    rows = datasets.Dataset.from_list([{**one, "licence": "CC0"} for one in (row, deaf, blind)])
    for found in (pipe([row, deaf, blind]), list(pipe(rows)), list(pipe(iter([row, deaf, blind]), batch_size=3))):
        for got, wanted in zip(found, expected, strict=True):
            assert_same(got, wanted)
    scores = [found[0]["score"] for found in expected]
    assert len(set(scores)) == 3
    with pytest.raises(TypeError, match="licence"):  # in a dict that is made for the call it may be a slip
        pipe({**row, "licence": "CC0"})


def test_sound_column_of_undecoded_files(pipe, scene_clip, other_clip):
    row = {"video": str(scene_clip), "audio": {"bytes": other_clip.read_bytes(), "path": None}}
    assert_same(pipe({**row, "question": QUESTIONS[0]}), pipe(str(scene_clip), QUESTIONS[0], audio=str(other_clip)))


def test_columns_of_a_dataset(pipe, scene_clip, other_clip):
    import datasets

    clips = [str(scene_clip), str(other_clip)]
    rows = datasets.Dataset.from_dict({"video": clips, "question": QUESTIONS})
    expected = pipe(clips, QUESTIONS)
    for found in (pipe(rows["video"], rows["question"]), pipe(KeyDataset(rows, "video"), QUESTIONS)):
        for got, wanted in zip(found, expected, strict=True):
            assert_same(got, wanted)
    with pytest.raises(ValueError, match="or a dataset; put it into the dicts"):
        pipe(rows, QUESTIONS[0])


def test_context_of_a_call_holds_for_items_without_one(pipe):
    told = {"context": "Ada is a circle."}
    items = [{"question": "What is Ada?", "context": None}, {"question": "What is Ada?", "context": "Ada is a star."}]
    expected = [pipe({**items[0], **told}), pipe(items[1])]
    for found in (pipe(items, **told), list(pipe((item for item in items), **told))):
        for got, wanted in zip(found, expected, strict=True):
            assert_same(got, wanted)


def test_frames_of_several_videos_are_a_batch(pipe):
    frames = torch.randint(0, 255, (2, 20, 3, 48, 64), dtype=torch.uint8)
    for got, video in zip(pipe(frames, QUESTIONS[0], fps=10), frames, strict=True):
        assert_same(got, pipe(video, QUESTIONS[0], fps=10))


def test_empty_list_of_videos(pipe):
    with pytest.raises(ValueError, match="video is an empty list"):
        pipe([], QUESTIONS[0])


def test_frames_with_a_rate(pipe):
    frames = torch.randint(0, 255, (20, 3, 48, 64), dtype=torch.uint8)
    found = pipe(frames, QUESTIONS[0], fps=10)
    assert len(found) == 1


def test_frames_without_a_rate_are_refused(pipe):
    with pytest.raises(ValueError, match="fps"):
        pipe(torch.zeros(20, 3, 48, 64, dtype=torch.uint8), QUESTIONS[0])


def test_sound_alone_and_text_alone(pipe, tmp_path):
    import numpy as np
    import soundfile

    path = tmp_path / "tone.wav"
    soundfile.write(path, np.sin(np.arange(32_000) * 0.2).astype("float32"), 16_000)
    assert pipe(str(path), "What is heard?")
    assert pipe(None, "What is Ada?", context="Ada is a circle.")
    assert pipe({"question": "What is Ada?", "context": "Ada is a circle."})


@pytest.mark.parametrize("question", ["", "   \n"])
def test_empty_question(pipe, scene_clip, question):
    with pytest.raises(ValueError, match="question is empty"):
        pipe(str(scene_clip), question)


def test_question_is_missing(pipe, scene_clip):
    with pytest.raises(ValueError, match="question is missing"):
        pipe(str(scene_clip))
    with pytest.raises(ValueError, match="question must be a string"):
        pipe({"video": str(scene_clip)})


@pytest.mark.parametrize("name", ["videos", "text", "qestion"])
def test_unknown_keyword_is_refused_without_media_too(pipe, scene_clip, name):
    given = {"question": QUESTIONS[0], name: str(scene_clip)}
    for call in (lambda: pipe(**given), lambda: pipe(given), lambda: pipe([given])):
        with pytest.raises(TypeError, match=f"does not know the keyword {name}"):
            call()


def test_question_longer_than_the_decoder_is_refused_before_reading(pipe):
    with pytest.raises(ValueError, match="256 positions"):
        pipe("no-such-file.mp4", "why " * 500)


@pytest.mark.parametrize("name", ["question", "context"])
def test_megabytes_of_text_are_refused_before_they_are_tokenized(pipe, name, monkeypatch):
    def tokenized(*args, **kwargs):
        raise AssertionError("tokenized")

    monkeypatch.setattr(type(pipe.processor.tokenizer), "__call__", tokenized)
    item = {"question": "why?", name: "why " * 2_500_000}
    with pytest.raises(
        ValueError, match=r"too long: with its context it has \d{8} characters.* 256 positions"
    ) as error:
        pipe("missing.mp4", **item)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["question", "context"])
def test_text_that_is_no_unicode_is_refused(pipe, name):
    item = {"question": "caf\u00e9?", name: b"caf\xe9".decode("utf-8", "surrogateescape")}
    with pytest.raises(ValueError, match=rf"the {name} is no valid Unicode: its character 4 is the surrogate"):
        pipe("missing.mp4", **item)
    with pytest.raises(ValueError, match="no valid Unicode"):
        pipe.processor(text="caf\udce9?\n")


def test_lists_of_different_length(pipe, scene_clip):
    with pytest.raises(ValueError, match="3 entries for 2 videos"):
        pipe([str(scene_clip)] * 2, ["a", "b", "c"])
    with pytest.raises(ValueError, match="1 entries for 2 questions"):
        pipe(str(scene_clip), ["a", "b"], ["c"])


@pytest.mark.parametrize("top_k", [0, -1, True, 1.5, 101, 10**6])
def test_top_k_out_of_range(pipe, top_k):
    with pytest.raises(ValueError, match="top_k"):
        pipe(None, "What?", top_k=top_k)


def test_missing_file_is_named(pipe):
    with pytest.raises(FileNotFoundError, match=r"absent\.mp4"):
        pipe("absent.mp4", "What?")


def test_processor_of_another_geometry_is_refused(random_parts):
    model, processor = random_parts
    from copy import deepcopy

    other = deepcopy(processor)
    other.video_processor.num_frames = 4
    with pytest.raises(ValueError, match=r"num_frames is 4.*says 8"):
        pipeline(PIPELINE_TASK, model=model, processor=other)


def test_save_pretrained_writes_everything_and_nothing_of_this_machine(pipe, scene_clip, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = pipeline(PIPELINE_TASK, model=str(tmp_path), device="cpu")
    assert_same(again(str(scene_clip), QUESTIONS[0]), pipe(str(scene_clip), QUESTIONS[0]))
    config = (tmp_path / "config.json").read_text()
    assert "custom_pipelines" not in config
    assert str(mirasol_hf.EMBEDDED_MODEL) not in config


def test_save_pretrained_refuses_a_file(pipe, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ValueError, match="is a file"):
        pipe.save_pretrained(path)


def test_pipeline_file_stands_alone():
    """It must travel as remote code: no import of its package, absolute or relative."""
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    code = "import importlib.util, sys; sys.modules['mirasol_hf'] = None\n"
    code += f"spec = importlib.util.spec_from_file_location('alone', {module.__file__!r})\n"
    code += "m = importlib.util.module_from_spec(spec); sys.modules['alone'] = m; spec.loader.exec_module(m)"
    assert "from ." not in source
    subprocess.run([sys.executable, "-c", code], check=True)


def test_answering_features_takes_no_option_of_reading(pipe, scene_clip):
    features = pipe.model.encode_media(**pipe.processor(videos=str(scene_clip), return_tensors="pt"))
    assert_same(pipe.answer_features(features, QUESTIONS[0], num_beams=2), pipe(scene_clip, QUESTIONS[0], num_beams=2))
    with pytest.raises(TypeError, match="num_frames"):
        pipe.answer_features(features, QUESTIONS[0], num_frames=8)
    with pytest.raises(TypeError, match="return_unfamiliar"):
        pipe.answer_features(features, QUESTIONS[0], return_unfamiliar=True)


def test_embedded_model_is_the_default(scene_clip, caplog):
    get_logger("transformers").addHandler(caplog.handler)
    try:
        found = pipeline(PIPELINE_TASK, device="cpu")
    finally:
        get_logger("transformers").removeHandler(caplog.handler)
    assert not caplog.records  # no warning of a default model
    assert found.model.config.model_type == "mirasol"
    answer = found(str(scene_clip), "How many shapes are shown in all?")[0]
    assert answer["answer"]
    assert answer["score"] > 0


def test_tokens_that_generation_config_does_not_name_are_those_of_the_decoder(tmp_path):
    folder = shutil.copytree(mirasol_hf.EMBEDDED_MODEL, tmp_path / "model")
    (folder / "generation_config.json").write_text("{}")
    question = "Which shape is shown first?"
    answers = pipeline(PIPELINE_TASK, model=str(folder))(mirasol_hf.SAMPLE_CLIP, question)
    assert answers == pipeline(PIPELINE_TASK)(mirasol_hf.SAMPLE_CLIP, question)


def test_probabilities_that_are_not_numbers_are_no_answer(random_parts):
    model, processor = random_parts
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight[5] = float("nan")
    with pytest.raises(ValueError, match="probabilities are NaN"):
        pipeline(PIPELINE_TASK, model=broken, processor=processor)(None, "what is heard ?")
