"""Thresholds set anew from a user's own unlabelled traffic."""
