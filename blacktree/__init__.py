"""Blacktree: git commits in, container images out, nothing lost on the way."""

__version__ = "0.1.0"
