"""Runs the `linvt` command. PyTorch and Transformers are imported only when arguments and local paths are checked."""
