"""Prepares model inputs from videos, images and chats; knows nothing of the model."""
