"""Scoring in Apache Beam: a model handler for `RunInference`.

    scored = prompts | RunInference(PromptModelHandler(PromptClassifier("model")))

Wrap it in `KeyedModelHandler` where each prompt comes with an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from ..classifier import PromptClassifier

try:
    from apache_beam.ml.inference.base import ModelHandler, PredictionResult
except ImportError as error:
    raise ImportError("scoring in Beam needs apache-beam: pip install 'promptassay[beam]'") from error


class PromptModelHandler(ModelHandler[Any, PredictionResult, PromptClassifier]):
    """Gives a `PredictionResult` for each prompt (a string or a list of messages).

    Its `inference` is the row that a prediction becomes in a table, as a dict. A prompt that cannot be scored gives a
    row of nulls whose `error` says why, and its `model_id` is the artefact's fingerprint.

    Args:
        classifier: says which artefact, operating point, backend and device; each worker opens its own.
        max_batch_size: prompts scored together at most.
        options: further options of `ModelHandler`, such as `large_model=True` to share one model in a machine.
    """

    def __init__(self, classifier: PromptClassifier, *, max_batch_size: int = 256, **options: Any) -> None:
        super().__init__(max_batch_size=max_batch_size, **options)
        self._classifier = classifier

    def load_model(self) -> PromptClassifier:
        """Open the artefact.

        Raises:
            ArtefactError: it cannot be opened on this worker.
        """
        classifier = copy(self._classifier)
        _ = classifier.assay
        return classifier

    def run_inference(
        self, batch: Sequence[Any], model: PromptClassifier, inference_args: dict[str, Any] | None = None
    ) -> Iterator[PredictionResult]:
        """Score a batch; there are no `inference_args`."""
        for prompt, result in zip(batch, model.classify_each(batch), strict=True):
            row = model.columns_of(result)
            yield PredictionResult(prompt, row, row["model"])

    def update_model_path(self, model_path: str | None = None) -> None:
        """Go on with the artefact in the folder `model_path`; Beam calls this where models come as a side input."""
        if model_path:
            self._classifier = copy(self._classifier)
            self._classifier.path = Path(model_path)

    def get_metrics_namespace(self) -> str:
        """Where Beam keeps what it measures."""
        return "promptassay"
