"""Replay memories as Avalanche exemplar buffers, one file a selection rule."""
