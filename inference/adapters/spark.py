"""Scoring in Spark: a UDF over a column of prompts.

    scored = frame.withColumn("scored", score_udf(PromptClassifier("model"))("text")).select("*", "scored.*")

The artefact must lie at the same path on the driver and on every worker, and promptassay be installed on both. It is
opened once in each Python worker, which Spark keeps for the tasks that follow. Spark gives a task as many threads as
`spark.task.cpus` says.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from ..artefact import ArtefactError
from ..classifier import PromptClassifier
from ..job.columns import output_types

try:
    # arrow_udf keeps nulls, booleans and lists as they are, and needs no pandas; predict_batch_udf takes neither
    # booleans nor lists of different lengths in a struct.
    from pyspark.sql.pandas.functions import arrow_udf
    from pyspark.sql.pandas.types import from_arrow_type
except ImportError as error:
    raise ImportError("scoring in Spark needs pyspark 4.1 or newer: pip install 'promptassay[spark]'") from error

_BATCH_ROWS = 256
"""Prompts scored together; Spark hands over 10,000 at once, and their tokens take memory."""


def score_udf(classifier: PromptClassifier) -> Any:
    """A UDF from a column of prompts to structs of the columns that a prediction becomes.

    Args:
        classifier: says which artefact, operating point, backend and device; the workers open their own.

    Returns:
        A UDF over one column: text, or arrays of structs with `role` and `content`. A prompt that cannot be scored
        (null, empty) gives a struct of nulls whose `error` says why.

    Raises:
        ArtefactError: the artefact cannot be opened here; on a worker it ends the query.
    """
    pickled, fingerprint = pickle.dumps(classifier), classifier.assay.fingerprint
    types = output_types(classifier.assay.labels, ())
    result = pa.struct([(name, types[name]) for name in classifier.column_names()])

    def score(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        worker = _open(pickled, fingerprint)
        for column in columns:
            for start in range(0, len(column), _BATCH_ROWS):
                prompts = column.slice(start, _BATCH_ROWS).to_pylist()
                rows = [worker.columns_of(each) for each in worker.classify_each(prompts)]
                yield pa.array(rows, type=result)

    # Else a filter on what came out is pushed below the projection, and all is scored twice.
    # mypy: pyspark's own types know no structs here.
    return arrow_udf(score, returnType=from_arrow_type(result)).asNondeterministic()  # type: ignore[call-overload]


@lru_cache(maxsize=2)
def _open(pickled: bytes, fingerprint: str) -> PromptClassifier:
    """The classifier of this worker: a UDF is unpickled for each task, and must not open its artefact each time."""
    classifier: PromptClassifier = pickle.loads(pickled)  # noqa: S301 (it comes from the driver, inside the UDF)
    if classifier.assay.fingerprint != fingerprint:
        raise ArtefactError(
            f"{classifier.path}: is another artefact on this worker than on the driver; copy it there anew"
        )
    return classifier
