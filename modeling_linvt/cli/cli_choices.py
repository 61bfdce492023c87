"""Lists the choices of options. They repeat constants of `linvt`, whose import takes seconds; tests/test_cli_start.py
compares the two.
"""

DTYPES = ("auto", "float32", "bfloat16", "float16")
FORMATS = ("full", "light", "self-contained")
KINDS = ("aquila_vl", "internvl2", "mipha", "molmo", "qwen_vl", "xgen_mm")
MAX_THUMBNAILS = 200
MEMORY_SUFFIX = ".memory.safetensors"
