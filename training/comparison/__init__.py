"""The artefact in use against a new one: whether the new one may take its place."""
