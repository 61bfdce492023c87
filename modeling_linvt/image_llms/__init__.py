"""Loads image-LLMs, refuses those that cannot work, and hides how their families differ."""
