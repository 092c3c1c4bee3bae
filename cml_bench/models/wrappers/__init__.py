"""Other ways to read an image than once, whole: one file a wrapper."""
