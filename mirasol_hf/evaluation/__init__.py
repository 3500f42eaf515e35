"""Evaluation: metrics, and the AVScenes benchmark through real files."""
