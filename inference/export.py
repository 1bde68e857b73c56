"""`export`: the encoder for another runtime, kept only if it decides as torch does."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .artefact import ArtefactError, load_artefact
from .backends import BackendError, open_backend
from .backends.exports import Parity, compare, reference_prompts, write_record
from .scorer import LogitScorer

if TYPE_CHECKING:
    import torch

    from .windows import PromptWindows

_QUANTISED_ON = 128
"""Windows that show a static quantisation the range of the network's numbers. They are not judged by."""


class ExportRefused(ValueError):
    """The export decides otherwise than torch; it was not kept."""


def export(folder: Path, backend: str, say: Callable[[str], None] = print) -> Parity:
    """Make a backend's files in the artefact, and measure on its reference prompts how near they come to torch.

    Args:
        folder: the artefact.
        backend: one of `BACKENDS`, but torch itself.
        say: told what is being done.

    Returns:
        What was measured. The files stand in `folder/BACKEND` whole or not at all.

    Raises:
        ExportRefused: more decisions changed than the backend is allowed; nothing was kept.
        ArtefactError, BackendError: the artefact is not sound, or a library is missing.
    """
    assay = load_artefact(folder)
    texts = reference_prompts(folder)
    scorer = LogitScorer.open(folder, assay, "torch", "cpu")
    prompts = scorer.windower(texts)
    # What shows a quantisation its ranges is no test of it.
    shown = prompts[: _prompts_of(prompts, _QUANTISED_ON)] if backend.endswith("-int8") else []
    if backend.endswith("-int8") and not shown:
        raise ArtefactError(f"{folder}: has too few reference prompts to quantise by; train again")
    say(f"scoring {len(texts):,} reference prompts with torch")
    expected, _ = scorer.score(prompts)
    writing = folder / f".{backend}.writing"
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    try:
        runtime, _, kind = backend.partition("-")
        files: Path | None = writing
        if kind in ("bf16", "fp16"):
            files = None  # arithmetic alone, over the files of float32
            if runtime != "torch" and not (folder / runtime).is_dir():
                raise BackendError(f"{backend} computes over the files of {runtime}: export that first")
        else:
            say(f"exporting to {runtime}")
            sample = [ids for prompt in shown for ids in prompt.ids][:_QUANTISED_ON]
            made = {"onnx": _to_onnx, "openvino": _to_openvino}[runtime](_network(scorer), writing)
            if kind == "int8":
                say("quantising")
                {"onnx": _onnx_int8, "openvino": _openvino_int8}[runtime](made, sample)
        say(f"scoring them with {backend}")
        device = None if runtime == "torch" else "cpu"  # torch's are for an accelerator, where there is one
        other = LogitScorer(scorer.windower, open_backend(backend, folder, device, files), scorer.pad_id)
        found, _ = other.score(prompts[len(shown) :])
        parity = compare(assay, backend, expected[len(shown) :], found)
        if not parity.passed:
            raise ExportRefused(f"{backend} is refused: {parity}")
        names = ("torch", *({"onnx": ("onnxruntime",), "openvino": ("openvino",)}.get(runtime, ())))
        write_record(writing, assay, parity, {name: version(name) for name in names})
        shutil.rmtree(folder / backend, ignore_errors=True)
        writing.rename(folder / backend)
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return parity


def _prompts_of(prompts: Sequence[PromptWindows], windows: int) -> int:
    """How many prompts the first `windows` windows belong to; at most half of them, for the others are to judge by."""
    ends = np.cumsum([len(prompt.ids) for prompt in prompts])
    return min(int(np.searchsorted(ends, windows)) + 1, len(prompts) // 2)


def _network(scorer: LogitScorer) -> torch.nn.Module:
    """The network of a scorer in torch, with logits as its only answer."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits

    return Logits(scorer.backend.model).eval()  # type: ignore[attr-defined]  # torch's has it


def _example(window: int) -> tuple[tuple[Any, Any], tuple[dict[int, Any], dict[int, Any]]]:
    """Inputs to trace with, and which of their sizes are free."""
    import torch
    from torch.export import Dim

    # Two tensors: one that stands for both inputs would be traced as one input.
    ids, mask = torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
    free = {0: Dim("windows", min=1, max=65536), 1: Dim("tokens", min=2, max=window)}
    return (ids, mask), (free, free)


def _positions(network: Any) -> int:
    """The longest window that the network can be traced for."""
    return int(getattr(network.network.config, "max_position_embeddings", 65536)) - 8


def _to_onnx(network: Any, folder: Path) -> Path:
    import torch

    try:
        import onnx  # noqa: F401  (the exporter needs both)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BackendError("this export needs onnx and onnxscript: pip install 'promptassay[export]'") from error
    from .backends.onnx_runtime import MODEL_FILE

    example, sizes = _example(_positions(network))
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            network,
            example,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=sizes,
            dynamo=True,
            verbose=False,
        )
        program.save(folder / MODEL_FILE)
    return folder / MODEL_FILE


def _onnx_int8(path: Path, sample: list[list[int]]) -> None:
    """Weights in int8 by channel; activations in int8 by the range that they turn out to have."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name("whole.onnx")
    path.rename(whole)
    with warnings.catch_warnings(action="ignore"):
        quantize_dynamic(
            whole, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )
    whole.unlink()


def _to_openvino(network: Any, folder: Path) -> Path:
    import torch

    from .backends.openvino_runtime import MODEL_FILE, import_openvino

    openvino = import_openvino()

    example, sizes = _example(_positions(network))
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        program = torch.export.export(network, example, dynamic_shapes=sizes)
        openvino.save_model(openvino.convert_model(program), folder / MODEL_FILE, compress_to_fp16=False)
    return folder / MODEL_FILE


def _openvino_int8(path: Path, sample: list[list[int]]) -> None:
    """Weights and activations in int8, by ranges seen on a sample, after SmoothQuant (Xiao et al., 2023)."""
    import logging

    from .backends.openvino_runtime import import_openvino

    openvino = import_openvino()
    try:
        import nncf
    except ImportError as error:
        raise BackendError("int8 for OpenVINO needs NNCF: pip install 'promptassay[export]'") from error
    nncf.set_log_level(logging.ERROR)
    batches = [(np.array([ids]), np.ones((1, len(ids)), dtype=np.int64)) for ids in sample]
    model = openvino.Core().read_model(path)
    quantised = nncf.quantize(
        model,
        nncf.Dataset(batches, list),
        subset_size=len(batches),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    openvino.save_model(quantised, path.with_name("int8.xml"), compress_to_fp16=False)
    del model, quantised  # they hold the files that are replaced now
    for suffix in (".xml", ".bin"):
        path.with_name(f"int8{suffix}").replace(path.with_suffix(suffix))
