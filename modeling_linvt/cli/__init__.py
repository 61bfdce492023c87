"""The `linvt` command. Its modules are importable without PyTorch, so that `--help` and errors come at once."""
