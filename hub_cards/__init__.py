"""Templates of model cards, and the cards of what is published. Python only because it is installed with `linvt`."""
