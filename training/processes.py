"""The processes of `accelerate launch`, or the one that was started without it."""

from __future__ import annotations

import torch
from accelerate import PartialState


def has_accelerator() -> bool:
    """Whether torch finds a GPU or its like here."""
    return torch.accelerator.is_available()


def processes() -> PartialState:
    """Who this process is among how many; without an accelerator they meet on the CPU."""
    return PartialState(cpu=not has_accelerator())
