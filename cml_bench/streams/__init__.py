"""How images and labels arrive: label-incremental Avalanche streams."""
