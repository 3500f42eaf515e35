"""In place of the library's tests of `generate()`, which its source distribution does not contain."""


class GenerationTesterMixin:
    """Empty: a mark that a model can generate."""
