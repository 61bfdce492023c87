"""Checkpoints for the Hub: their formats, their cards, and how they get there."""
