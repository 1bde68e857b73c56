"""The model card of an artefact: `README.md`, with metadata that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from data.summary import markdown_table
from inference.artefact import Assay
from inference.decision import DISTILLATION

from ..evaluation.sections import CALIBRATION, Sections
from ..evaluation.slices import MIN_SLICE, Slice, slices
from ..metrics.intervals import Estimate
from .plots import CALIBRATION_FILE, HISTORY_FILE
from .tables import METRIC_NAMES, metrics_table, show
from .templates import TEMPLATES

LICENSE = "apache-2.0"
_WORST_SOURCES = 10
# The metrics that stand in the metadata, by the hub's name for their kind. Nothing of the operating points: whoever
# sets them anew on traffic keeps the rest of the card.
_INDEXED = {
    "roc_auc": "roc_auc",
    "average_precision": "average_precision",
    "recall_at_fpr_5pct": "recall",
    "recall_at_fpr_1pct": "recall",
    "recall_at_fpr_0.1pct": "recall",
    "brier": "brier_score",
}


def model_card(assay: Assay, sections: Sections, config: Mapping[str, Any]) -> str:
    """The text of `README.md`.

    Args:
        assay: the artefact that was measured.
        sections: what was measured through it on the test split.
        config: the run, as `RunConfig.model_dump(mode="json")` gives it. Places on this machine are not told.
    """
    prompts = assay.provenance.get("prompts", {})
    return TEMPLATES.get_template("model_card.md").render(
        metadata=metadata(assay, sections).to_yaml(line_break="\n").strip(),
        assay=assay,
        fingerprints={name: assay.provenance.get(f"{name}_fingerprint", "unknown") for name in ("data", "code")},
        splits=markdown_table(["split", "prompts"], [[cell(name), n] for name, n in prompts.items()]),
        encoder={
            "name": cell(_encoder_name(assay, config)),
            "revision": cell(assay.base.get("revision")),
            "license": cell(assay.base.get("license")),
        },
        settings=markdown_table(["setting", "value"], [[name, cell(value)] for name, value in _settings(config)]),
        metrics=metrics_table(sections, [DISTILLATION, *assay.labels]),
        languages=slices_table("language", _judged(sections, "language")),
        lengths=slices_table("characters", _judged(sections, "length")),
        sources=slices_table("source", _worst_sources(sections)),
        points=_points_table(assay, sections),
        calibration=_calibration_table(sections),
        min_slice=MIN_SLICE,
        pictures={"history": HISTORY_FILE, "calibration": CALIBRATION_FILE},
    )


def metadata(assay: Assay, sections: Sections) -> ModelCardData:
    """What the hub files the model under."""
    fingerprint = str(assay.provenance.get("data_fingerprint", "unknown"))
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="distillation-style or organic",
            dataset_type="promptassay",
            dataset_name=f"promptassay build {fingerprint}",
            dataset_split="test",
            metric_type=kind,
            metric_name=METRIC_NAMES[name],
            metric_value=round(estimate.value, 4),
        )
        for name, kind in _INDEXED.items()
        if (estimate := sections[DISTILLATION].get(name)) and estimate.value is not None
    ]
    return ModelCardData(
        license=LICENSE,
        language=_languages(sections),
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["promptassay", "distillation", "safety"],
        base_model=_hub_id(assay),
        model_name="promptassay" if results else None,
        eval_results=results or None,
    )


def cell(value: Any) -> str:
    """A value on one line of Markdown: whatever it holds, it neither ends the cell nor opens markup."""
    return re.sub(r"([\\|<>`*\[\]])", r"\\\1", " ".join(str(value).split()))


def slices_table(kind: str, rows: Sequence[Slice]) -> str:
    """Slices as a Markdown table; the column of areas is left out where no slice has one."""
    areas = any(row.roc_auc for row in rows)
    header = [kind, *(["area under ROC"] if areas else []), "recall", "prompts", "false-positive rate", "prompts"]
    body = []
    for row in rows:
        cells = [cell(row.name), *([_shown(row.roc_auc)] if areas else [])]
        for estimate in (row.recall, row.fpr):
            cells += [_shown(estimate), str(estimate.n) if estimate else ""]
        body.append(cells)
    return markdown_table(header, body) if body else f"None has {MIN_SLICE} prompts."


def _shown(estimate: Estimate | None) -> str:
    return show(estimate) if estimate else ""


def _languages(sections: Sections) -> list[str] | str:
    """ISO 639 codes of the languages that the test split measures, or `multilingual` where it tells of none."""
    rows = sorted(_judged(sections, "language"), key=lambda row: -row.n)
    codes = [row.name.split("-")[0].lower() for row in rows]
    known = list(dict.fromkeys(code for code in codes if re.fullmatch("[a-z]{2,3}", code)))
    return known or "multilingual"


def _hub_id(assay: Assay) -> str | None:
    """The base encoder's name on the hub, `owner/name`, where it has one; the hub refuses a card that names another."""
    name = str(assay.base.get("hub") or "")
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name if "/" in name else None


def _encoder_name(assay: Assay, config: Mapping[str, Any]) -> str:
    """The encoder as the artefact names it; of a local folder the last part alone, since a path is a private matter."""
    name = str(assay.base.get("name"))
    return f"the local folder {PurePath(name).name}" if config["encoder"].get("path") else name


def _settings(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The settings that shape a run most."""
    encoder, adapter, windows, fit, loss = (config[x] for x in ("encoder", "adapter", "windows", "fit", "loss"))
    layers = "all" if encoder["keep_layers"] is None else f"the lowest {encoder['keep_layers']}"
    frozen = [
        *(["token embeddings"] if encoder["freeze_embeddings"] else []),
        *([f"{encoder['freeze_layers']} layers"] if encoder["freeze_layers"] else []),
    ]
    rows = [
        ("layers of the encoder", layers + (", and one that takes the mean" if encoder["mean_layer"] else "")),
        ("frozen", " and ".join(frozen) or "nothing"),
        ("LoRA rank", adapter["rank"] or "none: the encoder itself was trained"),
        ("windows", f"{windows['size']} tokens, overlap {windows['overlap']}, at most {windows['limit']} a prompt"),
        ("epochs", f"up to {fit['epochs']}, the best weights kept"),
        ("learning rate", f"{fit['learning_rate']:g}, {fit['schedule']}, warm-up {fit['warmup']:g}"),
        ("prompts in a step", fit["prompts_per_step"]),
        ("tokens of a prompt in an epoch", fit["tokens_per_prompt"]),
        ("weight decay, dropout", f"{fit['weight_decay']:g}, {fit['dropout']:g}"),
        ("class balance, label smoothing", f"{loss['class_balance']:g}, {loss['label_smoothing']:g}"),
        ("focal gamma, energy weight", f"{loss['focal_gamma']:g}, {loss['energy_weight']:g}"),
        ("calibration", config["calibration"]["method"]),
        ("seed", config["seed"]),
    ]
    return [(name, str(value)) for name, value in rows]


def _worst_sources(sections: Sections) -> list[Slice]:
    """Those with enough prompts to tell, the worst first."""
    return _judged(sections, "source")[:_WORST_SOURCES]


def _judged(sections: Sections, kind: str) -> list[Slice]:
    """The slices of a kind that are large enough to judge by."""
    return [row for row in slices(sections, kind) if not row.too_small]


def _points_table(assay: Assay, sections: Sections) -> str:
    header = [
        "operating point",
        "threshold",
        "false positives in calibration",
        "95 % interval",
        "FPR on test",
        "recall on test",
    ]
    rows = [
        [
            name + (" (default)" if name == assay.default_point else ""),
            f"{point.thresholds[DISTILLATION]:.4f}",
            f"{point.false_positives} of {point.n_organic}",
            f"{point.fpr_low:.2%} to {point.fpr_high:.2%}",
            show(sections[f"operating point {name}"]["false_positive_rate"]),
            show(sections[f"operating point {name}"]["recall"]),
        ]
        for name, point in assay.operating_points.items()
    ]
    return markdown_table(header, rows)


def _calibration_table(sections: Sections) -> str:
    """Errors of the probabilities before and after, so that a reader sees what calibration is worth."""
    measured = sections[CALIBRATION]
    error = "expected_calibration_error"
    rows = [
        ["expected calibration error", show(measured[f"{error}_before"]), show(measured[error])],
        ["Brier score", show(measured["brier_before"]), show(sections[DISTILLATION]["brier"])],
    ]
    return markdown_table(["probability of distillation", "before", "after"], rows)
