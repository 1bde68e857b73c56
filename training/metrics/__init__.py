"""Metrics for rare positives, with intervals; the classes are `evaluate` metrics that anybody can combine."""

from .modules import (
    F1,
    AveragePrecision,
    Brier,
    Confusion,
    ExpectedCalibrationError,
    LogLoss,
    PartialRocAuc,
    PrecisionAtBaseRate,
    RecallAtFpr,
    RocAuc,
    SubsetAccuracy,
)

__all__ = [
    "F1",
    "AveragePrecision",
    "Brier",
    "Confusion",
    "ExpectedCalibrationError",
    "LogLoss",
    "PartialRocAuc",
    "PrecisionAtBaseRate",
    "RecallAtFpr",
    "RocAuc",
    "SubsetAccuracy",
]
