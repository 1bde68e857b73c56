"""Scoring in Python: prompts in, predictions out."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .artefact import ArtefactError, Assay, load_artefact
from .backends import AUTO, BackendError, check_backend
from .cache import ScoreCache, Scored
from .decision import Prediction, decide, prediction_columns, probabilities
from .gate import Gate, below_all, load_gate
from .hub import artefact_folder
from .prompts import Prompt, PromptError, Rendered, parse_messages, render
from .scorer import BATCH_TOKENS, LogitScorer, Tick, score_windows
from .windows import PromptWindows

if TYPE_CHECKING:
    from .artefact import OperatingPoint


@dataclass(frozen=True, slots=True)
class _Loaded:
    assay: Assay
    point: OperatingPoint
    scorer: LogitScorer
    cache: ScoreCache | None
    gate: Gate | None
    cut: float

    def hold(self, windows: dict[str, PromptWindows]) -> dict[str, Held]:
        """The texts that the gate decides."""
        if self.gate is None or not windows:
            return {}
        scores = self.gate.scores(list(windows.values()))
        below = below_all(self.assay, scores)
        return {
            text: Held(float(below[i]), cut.n_tokens)
            for i, (text, cut) in enumerate(windows.items())
            if scores[i] < self.cut
        }


@dataclass(frozen=True, slots=True)
class Held:
    """A text that the gate keeps from the encoder: its probability, and its length in tokens."""

    distillation: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """Prompts ready for the network.

    Attributes:
        errors: for each prompt why it cannot be scored, or None.
        rendered: the others.
        known: distinct texts among them whose scores the cache holds.
        held: distinct texts that the gate decides, with its score; nothing more is done for them.
        windows: the other distinct texts: what repeats is scored once.
    """

    errors: list[PromptError | None]
    rendered: list[Rendered]
    known: dict[str, Scored]
    held: dict[str, Held]
    windows: dict[str, PromptWindows]

    @property
    def repeats(self) -> int:
        """Prompts that are scored by another one's windows."""
        return len(self.rendered) - len(self.windows) - len(self.held) - len(self.known)


class PromptClassifier:
    """A trained artefact, ready to score prompts of any length in any number.

    It opens its artefact at the first use, so that it can be pickled into a worker; `load` opens it at once. It may
    be shared by threads. A prompt's score does not depend on the prompts beside it (float32: within 1e-5).
    """

    def __init__(
        self,
        path: str | Path,
        *,
        backend: str = AUTO,
        operating_point: str | None = None,
        device: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
        cache: str | Path | None = None,
        gate: bool = False,
    ) -> None:
        check_backend(backend)
        self.path = path
        self.backend = backend
        self.operating_point = operating_point
        self.device = device
        self.batch_tokens = batch_tokens
        self.cache = cache
        self.gate = gate
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backend: str = AUTO,
        operating_point: str | None = None,
        device: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
        cache: str | Path | None = None,
        gate: bool = False,
    ) -> PromptClassifier:
        """Open an artefact.

        Args:
            path: its folder, or `OWNER/NAME@COMMIT` of the Hugging Face hub.
            backend: what runs the network: `torch`, or what `export` has made; `auto` is the fastest of them here.
            operating_point: where `flagged` is drawn, such as `fpr-1pct`; the artefact's default where not given.
            device: a torch device such as `cpu` or `cuda:0`; an accelerator is used where there is one.
            batch_tokens: padded tokens in one call of the network.
            cache: a folder on this machine's disk for scores that outlive the process.
            gate: let the artefact's gate, where it has one for the operating point, decide what it can: such a
                prediction has `stage` "gate", no scores of categories and a probability below every threshold.

        Raises:
            BackendError: the backend cannot run here.
            ArtefactError: the folder is not a sound artefact, or lacks the operating point.
        """
        classifier = cls(
            path,
            backend=backend,
            operating_point=operating_point,
            device=device,
            batch_tokens=batch_tokens,
            cache=cache,
            gate=gate,
        )
        classifier._open()
        return classifier

    @property
    def assay(self) -> Assay:
        """What the artefact says of itself."""
        return self._open().assay

    @property
    def scorer(self) -> LogitScorer:
        """What gives the logits."""
        return self._open().scorer

    @property
    def backend_name(self) -> str:
        """The backend in use, which `auto` has chosen."""
        return self.scorer.backend_name

    @property
    def gate_in_use(self) -> Gate | None:
        """The gate that decides a part of the prompts, if one does."""
        return self._open().gate

    @property
    def point_name(self) -> str:
        """The operating point in use."""
        return self.operating_point or self.assay.default_point

    def classify(self, prompts: Iterable[Prompt]) -> list[Prediction]:
        """Score prompts (strings or lists of messages, mixed), in order.

        Raises:
            PromptError: a prompt cannot be scored; the message gives its place.
        """
        if isinstance(prompts, str):
            raise TypeError("classify takes a list of prompts: classify([prompt])")
        results = self.classify_each(prompts)
        for number, result in enumerate(results):
            if isinstance(result, PromptError):
                raise PromptError(f"prompts[{number}]: {result}") from result
        return [result for result in results if isinstance(result, Prediction)]

    def classify_each(self, prompts: Iterable[Any]) -> list[Prediction | PromptError]:
        """Like `classify`, with a `PromptError` in the place of each prompt that cannot be scored.

        A `PromptError` among the prompts (a row that could not even be read) stays in its place.
        """
        return self.predict(self.prepare(prompts))

    def prepare(self, prompts: Iterable[Any]) -> Prepared:
        """The first half of `classify_each`: prompts rendered and cut into windows, beside the network's work."""
        rendered: list[Rendered] = []
        errors: list[PromptError | None] = []
        for prompt in prompts:
            try:
                if isinstance(prompt, PromptError):
                    raise prompt
                rendered.append(render(prompt))
                errors.append(None)
            except PromptError as error:
                errors.append(error)
        distinct = list(dict.fromkeys(prompt.text for prompt in rendered))
        if not distinct:
            return Prepared(errors, rendered, {}, {}, {})
        loaded = self._open()
        known = {} if loaded.cache is None else loaded.cache.find(distinct)
        texts = [text for text in distinct if text not in known]
        windows = dict(zip(texts, loaded.scorer.windower(texts), strict=True))
        held = loaded.hold(windows)
        return Prepared(errors, rendered, known, held, {text: cut for text, cut in windows.items() if text not in held})

    def predict(self, prepared: Prepared, tick: Tick | None = None) -> list[Prediction | PromptError]:
        """The second half of `classify_each`: the network's work; see `LogitScorer.score` for `tick`."""
        predictions = iter(self._predict(prepared, tick))
        return [error if error is not None else next(predictions) for error in prepared.errors]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score a batch of columns, as Ray Data, Spark and Beam hand them over.

        Args:
            batch: has a column `text`, or `messages` (lists, or JSON text), or both, one of them null in each row.

        Returns:
            The columns given and those of a prediction, with `error` (null where the row was scored).
        """
        texts, messages = batch.get("text"), batch.get("messages")
        if texts is None and messages is None:
            raise KeyError(f'the batch needs a column "text" or "messages"; it has: {", ".join(batch)}')
        size = len(texts if texts is not None else messages)  # type: ignore[arg-type]
        prompts = [
            row_prompt(None if texts is None else texts[i], None if messages is None else messages[i])
            for i in range(size)
        ]
        rows = [self.columns_of(result) for result in self.classify_each(prompts)]
        names = self.column_names()
        return {**batch, **{name: _column([row[name] for row in rows]) for name in names}}

    def column_names(self) -> list[str]:
        """The columns that a prediction becomes in a table, in order."""
        return prediction_columns(self.assay.labels)

    def columns_of(self, result: Prediction | PromptError) -> dict[str, Any]:
        """One row of a table: a prediction's fields, or nulls and the reason in `error`."""
        row: dict[str, Any] = dict.fromkeys(self.column_names())
        row["model"] = self.assay.fingerprint
        if isinstance(result, PromptError):
            return row | {"error": str(result)}
        fields = result.to_dict()
        return row | fields.pop("scores") | fields | {"stage": result.stage}

    def _predict(self, prepared: Prepared, tick: Tick | None) -> list[Prediction]:
        if not prepared.rendered:
            return []
        loaded = self._open()
        scored = dict(prepared.known)
        if prepared.windows:
            fresh = score_windows(loaded.scorer, prepared.windows, tick)
            if loaded.cache is not None:
                loaded.cache.add(fresh)
            scored |= fresh
        predictions = {text: _held(item) for text, item in prepared.held.items()}
        place = {text: i for i, text in enumerate(scored)}
        if scored:
            categories, distillation = probabilities(loaded.assay, np.stack([item.logits for item in scored.values()]))
        for text, i in place.items():
            item = scored[text]
            predictions[text] = Prediction(
                **decide(loaded.assay, loaded.point, categories[i], distillation[i]),
                n_tokens=item.n_tokens,
                n_windows=item.n_windows,
                truncated=item.truncated,
                top_window=item.top,
            )
        return [_at_home(predictions[prompt.text], prompt) for prompt in prepared.rendered]

    def _open(self) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                folder = artefact_folder(self.path)
                assay = load_artefact(folder)
                point = assay.point(self.operating_point)
                try:
                    scorer = LogitScorer.open(folder, assay, self.backend, self.device, self.batch_tokens)
                except (ArtefactError, BackendError):
                    raise
                except (OSError, ValueError, KeyError) as error:
                    raise ArtefactError(f"{self.path}: the model cannot be opened ({error})") from error
                gate = load_gate(folder, assay) if self.gate else None
                cut = gate.cuts.get(self.operating_point or assay.default_point) if gate is not None else None
                cache = None
                if self.cache is not None:
                    way = f"{assay.fingerprint}-{scorer.backend_name}"
                    if gate is not None and cut is not None:  # what it holds back must not depend on older jobs
                        way += f"-{gate.fingerprint}-{self.operating_point or assay.default_point}"
                    cache = ScoreCache(Path(self.cache), way, len(assay.labels))
                self._loaded = _Loaded(
                    assay,
                    point,
                    scorer,
                    cache,
                    gate if cut is not None else None,
                    cut.score if cut is not None else 0.0,
                )
            return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_loaded", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _loaded=None, _lock=threading.Lock())


def _held(item: Held) -> Prediction:
    """What is said of a prompt that the encoder has not read."""
    return Prediction(
        scores={},
        distillation=item.distillation,
        labels=[],
        flagged=False,
        uncertain=False,
        n_tokens=item.n_tokens,
        n_windows=0,
        truncated=False,
        top_window=None,
    )


def _at_home(prediction: Prediction, prompt: Rendered) -> Prediction:
    """A prediction of a rendered text as one of the prompt it was rendered from, whose characters stand elsewhere."""
    if prediction.top_window is None:
        return prediction
    return replace(prediction, top_window=prompt.raw_span(*prediction.top_window))


def row_prompt(text: Any, messages: Any) -> Any:
    """A row's prompt where it may stand in either column, or the `PromptError` that says why it has none."""
    if messages is None or messages == "" or (text is not None and text != ""):
        return text
    try:
        return parse_messages(messages)
    except PromptError as error:
        return error


def _column(values: list[Any]) -> np.ndarray:
    """A column as an array: numbers as such, all else (and all with nulls) as objects."""
    if all(isinstance(value, bool | int | float) for value in values) and values:
        return np.asarray(values)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
