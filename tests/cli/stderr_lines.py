def own_lines(stderr: bytes | str) -> list[str]:
    """What a child process told on stderr, less what torchao tells of itself there where it is installed."""
    text = stderr.decode() if isinstance(stderr, bytes) else stderr
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line and not ("torchao" in line or "register_constant()" in line)]
