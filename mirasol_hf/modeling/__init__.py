"""The model: configuration, towers, Combiner, time model, text decoder, losses and generation."""
