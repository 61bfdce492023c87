"""Loads and saves checkpoints: safetensors only, and light ones that leave the image-LLM where it is."""
