"""Reads videos from files and URLs: frames with their times."""
