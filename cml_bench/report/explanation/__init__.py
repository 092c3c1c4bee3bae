"""Where labels look in an image."""
