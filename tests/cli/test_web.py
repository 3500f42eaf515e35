"""`mirasol web`: the page, and what each kind of bad input gives. gradio itself runs where it is installed."""

import importlib.util
import socket
import sys
from types import ModuleType

import pytest

import mirasol_hf
from mirasol_hf.cli.loading import load_pipeline

QUESTION = "Which shape is shown first?"


@pytest.fixture
def gradio(monkeypatch):
    """A stand-in that keeps what it is given."""
    module = ModuleType("gradio")
    module.__spec__ = importlib.util.spec_from_loader("gradio", loader=None)
    module.Error = type("Error", (Exception,), {"__init__": lambda self, text, **options: None})
    for name in ("Video", "Textbox", "Label"):
        setattr(module, name, lambda **options: None)

    class Interface:
        def __init__(self, function, *parts, **options):
            module.page, self.options = self, options
            self.answer = function

        def launch(self, **options):
            self.launched = options

    module.Interface = Interface
    monkeypatch.setitem(sys.modules, "gradio", module)
    return module


def test_page_answers_and_tells_what_is_missing(mirasol, gradio):
    ran = mirasol("web", "--host", "0.0.0.0", "--port", "7999", "--share")
    assert ran.code == 0, ran.err
    page = gradio.page
    assert page.launched == {"server_name": "0.0.0.0", "server_port": 7999, "share": True}
    assert "AVScenes" in page.options["description"]
    found, note = page.answer(str(mirasol_hf.SAMPLE_CLIP), QUESTION, "")
    assert "AVScenes" in note and "unlike" not in note
    assert max(found, key=found.get) == load_pipeline(None)(mirasol_hf.SAMPLE_CLIP, QUESTION)[0]["answer"]
    for given in ((None, QUESTION, ""), (str(mirasol_hf.SAMPLE_CLIP), " ", ""), ("absent.mp4", QUESTION, "")):
        with pytest.raises(gradio.Error):
            page.answer(*given)


def test_bad_options(refused, gradio):
    assert "/nonexistent" in refused("web", "--model", "/nonexistent")
    assert "--port 70000" in refused("web", "--port", "70000")


def test_address_cannot_be_served(refused, gradio):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: Address already in use" in refused("web", "--port", port)
    assert "no.such.host:7860: " in refused("web", "--host", "no.such.host")


def test_gradio_is_absent(refused, monkeypatch):
    from mirasol_hf.cli import web

    monkeypatch.setattr(web, "find_spec", lambda name: None)
    assert "pip install 'mirasol_hf[web]'" in refused("web")


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio")
def test_the_page_of_gradio_itself():
    from gradio_client import Client, handle_file

    from mirasol_hf.web.page import build_page

    page = build_page(load_pipeline(None))
    try:
        address = page.launch(prevent_thread_lock=True, quiet=True)[1]
        found, note = Client(address, verbose=False).predict(
            handle_file(str(mirasol_hf.SAMPLE_CLIP)), QUESTION, "", api_name="/answer"
        )
    finally:
        page.close()
    assert "AVScenes" in note
    assert found["label"] == load_pipeline(None)(mirasol_hf.SAMPLE_CLIP, QUESTION)[0]["answer"]
