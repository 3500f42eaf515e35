"""`mirasol web`: asks questions on a web page."""

import os
import socket
from importlib.util import find_spec
from typing import Annotated

import typer

from mirasol_hf.cli.loading import load_pipeline
from mirasol_hf.cli.options import ModelOption


def web(
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to serve; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to serve.")] = 7860,
    share: Annotated[
        bool, typer.Option("--share", help="Also a public address, through gradio's servers, for anyone who knows it.")
    ] = False,
) -> None:
    """Serve a page where one uploads a video and asks about it (extra `web`)."""
    if find_spec("gradio") is None:
        raise ValueError("mirasol web needs gradio, which is not installed: pip install 'mirasol_hf[web]'")
    if not 1 <= port <= 65535:
        raise ValueError(f"--port {port} must lie between 1 and 65535")
    _check_address(host, port)
    pipe = load_pipeline(model)
    from mirasol_hf.web.page import build_page

    build_page(pipe).launch(server_name=host, server_port=port, share=share)


def _check_address(host: str, port: int) -> None:
    """Fails before the model is loaded; gradio would ask for another port whatever is wrong with the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror  # names that are not found have numbers below 0
        raise ValueError(f"cannot serve {host}:{port}: {reason}") from error
