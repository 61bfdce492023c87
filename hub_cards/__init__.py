"""The templates of model cards, and the cards of what is published. Python only to be installed with `linvt`."""

from pathlib import Path


TEMPLATE = Path(__file__).parent / "model_card.md"
ADAPTER_TEMPLATE = Path(__file__).parent / "adapter_card.md"
AUTOSHOT_CARD = Path(__file__).parent / "autoshot_weights.md"
