"""Labelled prompts: reading, checking, cleaning and splitting them; `data/seed` is the shipped corpus."""
