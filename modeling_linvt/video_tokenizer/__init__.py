"""Turns frame tokens into video tokens: LinVT (SVR and TTA) and RED-VILLM."""
