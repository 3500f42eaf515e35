"""Training: collator, Trainer, tokenizer, the AVScenes curriculum and the recipes."""
