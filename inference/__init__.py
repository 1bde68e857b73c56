"""promptassay: tells from the content of a prompt whether it is built to distil a language model."""

from .artefact import ArtefactError, load_artefact
from .classifier import PromptClassifier
from .decision import Prediction
from .prompts import PromptError, render_prompt

__version__ = "0.1.0"
__all__ = [
    "ArtefactError",
    "Prediction",
    "PromptClassifier",
    "PromptError",
    "load_artefact",
    "render_prompt",
]
