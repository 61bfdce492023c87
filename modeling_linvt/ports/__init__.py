"""Ports image-LLMs that Transformers lacks, built from its parts."""
