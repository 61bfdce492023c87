"""Expands chats into prompts: places of videos, their instructions, and the answers."""
