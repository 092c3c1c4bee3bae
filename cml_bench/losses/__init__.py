"""Criteria on four-state labels, one file a family."""
