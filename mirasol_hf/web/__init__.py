"""A web page around the pipeline (extra `web`)."""
