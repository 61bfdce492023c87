"""Detects shots: the AutoShot network, its weights, cuts, and contact sheets."""
