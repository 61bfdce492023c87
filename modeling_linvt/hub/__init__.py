"""Publishes models on the Hub: formats of checkpoints, model cards, and pushing them."""
