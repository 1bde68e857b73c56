"""What makes hostile inputs: seeded mutations of an artefact, and harnesses for atheris."""
