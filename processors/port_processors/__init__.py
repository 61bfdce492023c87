"""Processes images and prompts for the ports, image-LLMs that Transformers lacks."""
