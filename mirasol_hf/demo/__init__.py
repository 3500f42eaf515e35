"""A guided look at the embedded model."""
