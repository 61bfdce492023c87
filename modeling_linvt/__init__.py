"""linvt: turn any image-LLM of Transformers into a video-LLM. This folder is the root of the `linvt` package."""
