"""Folders for the Hugging Face Hub: a model with its processor, its code and a card made from its run."""
