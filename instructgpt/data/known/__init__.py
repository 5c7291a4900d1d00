"""Formats of other projects, one file a family: each class here is recognised by its columns."""
