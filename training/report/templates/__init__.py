"""The texts and pictures that people read, as jinja2 templates, and the environment that fills them in."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    # What goes into Markdown is escaped where it stands (`training.report.card.cell`): `&#39;` stays in a code span.
    autoescape=select_autoescape(["html", "svg"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
