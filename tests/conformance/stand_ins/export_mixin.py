"""In place of the library's tests of its exporters, which its source distribution does not contain."""


class ExportTesterMixin:
    """Empty."""
