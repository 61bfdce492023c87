"""Configures every part: each number of the papers, with its unit and section."""
