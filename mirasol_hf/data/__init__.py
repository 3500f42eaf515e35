"""Data to learn from: the AVScenes generator."""
