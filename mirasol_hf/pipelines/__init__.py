"""The task `"video-question-answering"` of `transformers.pipeline`."""
