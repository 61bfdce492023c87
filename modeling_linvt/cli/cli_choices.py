"""Choices and numbers that the parser shows. They repeat those of `linvt`, whose import takes seconds, and
tests/test_cli_start.py compares them.
"""

DTYPES = ("auto", "float32", "bfloat16", "float16")
FORMATS = ("full", "light", "self-contained")
KINDS = ("aquila_vl", "internvl2", "mipha", "molmo", "qwen_vl", "xgen_mm")
MAX_THUMBNAILS = 200
