"""Trains on video chats: rows, their checks, batches, cached frame tokens, the trainer and its two stages."""
