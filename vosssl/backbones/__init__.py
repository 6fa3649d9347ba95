"""Images to features, and the loaders of foreign checkpoints."""
