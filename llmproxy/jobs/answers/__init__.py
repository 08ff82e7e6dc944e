"""Answers that can be asked for again by their ids."""
