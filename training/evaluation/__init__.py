"""Any artefact on any labelled data, through the same scorer that ships."""
