"""Backbones, growing heads and the model that joins them."""
