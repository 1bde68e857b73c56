"""The engine on a Ray cluster: files are read by Ray's tasks, chunks scored by a pool of actors, parts written here.

Ray runs again what a lost worker had begun; what is recorded in the job's ledger is never scored twice, so a job that
was killed as a whole goes on with `--resume`, on this engine or the local one. A chunk travels as one value of one row,
since Ray is free to split and join blocks of rows, and batches must not cross a chunk.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..artefact import ArtefactError
from ..classifier import PromptClassifier
from .chunks import Chunk, FileEnd, FileTask, ScoredChunk, read_chunks
from .files import InputError
from .ledger import JobError
from .local import Scorer

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")

try:
    import pyarrow
    import ray
    import ray.data
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask
except ImportError as error:
    raise JobError("--engine ray needs Ray: pip install 'promptassay[ray]'") from error

_ITEM = "item"
_READING = 0.1
"""Cores that Ray sets aside for a task that reads: it waits for the actors most of the time."""


class _ChunkSource(Datasource):
    """One read task for each file; it gives a row for each chunk, and one for the file's end."""

    def __init__(self, tasks: Sequence[FileTask]) -> None:
        super().__init__()
        self._tasks = tasks

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: Ray would split and join blocks by it."""
        return None

    def get_read_tasks(self, parallelism: int, *more: Any, **options: Any) -> list[ReadTask]:
        """A task for each file."""
        unknown = BlockMetadata(None, None, None, None)
        return [ReadTask(partial(_blocks, task), unknown) for task in self._tasks]


def _blocks(task: FileTask) -> Iterator[pyarrow.Table]:
    for item in read_chunks(task):
        yield pyarrow.table({_ITEM: pyarrow.array([pickle.dumps(item)], pyarrow.large_binary())})


class _ScoreChunk:
    """An actor: it opens the artefact once, and turns rows that hold chunks into rows that hold what came of them."""

    def __init__(
        self, classifier: PromptClassifier, tasks: Mapping[int, FileTask], kind: str, threads: int, fingerprint: str
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        if classifier.assay.fingerprint != fingerprint:
            raise ArtefactError(
                f"{classifier.path}: holds artefact {classifier.assay.fingerprint} on a worker and {fingerprint} on "
                "the driver; put the same one at the same path on all machines"
            )
        self._scorer = Scorer(classifier, tasks, kind)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        results = []
        for value in batch[_ITEM]:
            item = pickle.loads(value.as_buffer())  # noqa: S301 (written by this very job's read tasks)
            if isinstance(item, Chunk):
                item = self._scorer.score(item, self._scorer.prepare(item))
            results.append(pickle.dumps(item))
        return pyarrow.table({_ITEM: pyarrow.array(results, pyarrow.large_binary())})


def score_on_ray(
    tasks: Mapping[int, FileTask],
    classifier: PromptClassifier,
    kind: str,
    *,
    threads: int,
    actors: tuple[int, int | None],
    gpus: float,
    tick: Callable[[int], Any],
) -> Generator[ScoredChunk | FileEnd]:
    """Score the chunks of all files, in any order.

    Args:
        tasks: the files, by number; every machine of the cluster must reach them, and the artefact, by the same path.
        classifier: the artefact.
        kind: the format of a part.
        threads: of each actor's network, and the cores that it takes up.
        actors: the least and the greatest number of them; None: as many as the cluster holds.
        gpus: of each actor; may be a fraction.
        tick: called with the number of rows that were scored, again and again.

    Raises:
        InputError, JobError, ArtefactError: as on the local engine, from whichever worker it came.
    """
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    low, high = actors
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # a chunk goes on to an actor as soon as it is read
    context.enable_progress_bars = False
    with ray.data.DataContext.current(context):
        chunks = ray.data.read_datasource(
            _ChunkSource(list(tasks.values())), num_cpus=_READING, override_num_blocks=len(tasks)
        )
        scored = chunks.map_batches(
            _ScoreChunk,
            fn_constructor_args=(classifier, tasks, kind, threads, classifier.assay.fingerprint),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(
                min_size=low, max_size=high or max(low, _room(threads, gpus)), max_tasks_in_flight_per_actor=2
            ),
            num_cpus=threads,
            num_gpus=gpus or None,
        )
        try:
            for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                for value in batch[_ITEM]:
                    item = pickle.loads(value.as_buffer())  # noqa: S301 (written by this very job's actors)
                    if isinstance(item, ScoredChunk):
                        tick(item.counts["rows"])
                    yield item
        except ray.exceptions.RayError as error:
            raise _cause(error) from error


def _room(threads: int, gpus: float) -> int:
    """How many actors the cluster holds now."""
    there = ray.cluster_resources()
    by_cpu = int((there.get("CPU", 1) - 2 * _READING) // threads)
    return max(1, min(by_cpu, int(there.get("GPU", 0) // gpus)) if gpus else by_cpu)


def _cause(error: BaseException) -> Exception:
    """Our own error that ended a task of Ray's, or a `JobError` that tells of Ray's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ArtefactError | InputError | JobError) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    first = str(error).strip().splitlines()[-1]
    return JobError(f"Ray gave up ({type(error).__name__}: {first}); what was scored is kept: go on with --resume")
