"""The engine on a Ray cluster: files are read by Ray's tasks, chunks scored by a pool of actors, parts written here.

Ray runs again what a lost worker had begun; what is recorded in the job's ledger is never scored twice, so a job that
was killed as a whole goes on with `--resume`, on this engine or the local one. A chunk travels as one value of one row,
since Ray is free to split and join blocks of rows, and batches must not cross a chunk.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any

from ..artefact import ArtefactError
from ..classifier import PromptClassifier
from .chunks import Chunk, FileEnd, FileTask, ScoredChunk, read_chunks
from .files import InputError
from .ledger import JobError
from .local import Scorer

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

try:
    import pyarrow
    import ray
    import ray.data
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask
except ImportError as error:
    raise JobError("--engine ray needs Ray: pip install 'promptassay[ray]'") from error

_ITEM = "item"
_TRIES = 3
"""How often Ray repeats what died with its worker, before it gives up."""
_OURS = (ArtefactError, InputError, JobError, OSError)
"""Errors that come to the driver as items: as exceptions, Ray would wrap them in its own words."""


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
    try:
        for item in read_chunks(task):
            yield _table([item])
    except _OURS as error:
        yield _table([error])


def _table(items: Sequence[Any]) -> pyarrow.Table:
    return pyarrow.table({_ITEM: pyarrow.array([pickle.dumps(item) for item in items], pyarrow.large_binary())})


def _items(table: pyarrow.Table) -> Iterator[Any]:
    for value in table[_ITEM]:
        yield pickle.loads(value.as_buffer())  # noqa: S301 (written by this very job's tasks)


class _ScoreChunk:
    """An actor: it opens the artefact once, and turns rows that hold chunks into rows that hold what came of them."""

    def __init__(
        self, classifier: PromptClassifier, tasks: Mapping[int, FileTask], kind: str, threads: int, fingerprint: str
    ) -> None:
        self._classifier, self._threads, self._fingerprint = classifier, threads, fingerprint
        self._scorer = Scorer(classifier, tasks, kind)
        self._opened = False

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        return _table([self._score(item) if isinstance(item, Chunk) else item for item in _items(batch)])

    def _score(self, chunk: Chunk) -> ScoredChunk | Exception:
        try:
            if not self._opened:  # not when the actor is made: what fails there comes to the driver without its cause
                self._open()
            return self._scorer.score(chunk, self._scorer.prepare(chunk))
        except _OURS as error:
            return error

    def _open(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
        found = self._classifier.assay.fingerprint
        if found != self._fingerprint:
            raise ArtefactError(
                f"{self._classifier.path}: is artefact {found} on a worker, and {self._fingerprint} where the job was "
                "started; put the same one at the same path on all machines"
            )
        self._opened = True


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
    with redirect_stdout(sys.stderr):  # where Ray tells of lost workers
        if not ray.is_initialized():
            ray.init(logging_level=logging.ERROR, log_to_driver=False)
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        room = _room(threads, gpus)
        low, high = actors
        context = ray.data.DataContext.get_current().copy()
        context.target_max_block_size = 1  # a chunk goes on to an actor as soon as it is read
        context.enable_progress_bars = False
        with ray.data.DataContext.current(context):
            # Reading takes no core: the actors may hold them all, and would wait for ever. Few read at once, since
            # each reader is a process.
            scored = ray.data.read_datasource(
                _ChunkSource(list(tasks.values())),
                num_cpus=0,
                override_num_blocks=len(tasks),
                compute=ray.data.TaskPoolStrategy(min(len(tasks), max(2, low))),
            ).map_batches(
                _ScoreChunk,
                fn_constructor_args=(classifier, tasks, kind, threads, classifier.assay.fingerprint),
                batch_size=1,
                batch_format="pyarrow",
                zero_copy_batch=True,
                compute=ray.data.ActorPoolStrategy(
                    min_size=low, max_size=high or max(low, room), max_tasks_in_flight_per_actor=2
                ),
                num_cpus=threads,
                num_gpus=gpus or None,
                max_restarts=-1,
                max_task_retries=_TRIES,
            )
            try:
                for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                    for item in _items(batch):
                        if isinstance(item, Exception):
                            raise item
                        if isinstance(item, ScoredChunk):
                            tick(item.counts["rows"])
                        yield item
            except ray.exceptions.RayError as error:
                why = str(error).strip().splitlines()[-1]
                raise JobError(
                    f"Ray gave up ({type(error).__name__}: {why}); what was scored is kept: go on with --resume"
                ) from error


def _room(threads: int, gpus: float) -> int:
    """How many actors the cluster holds now.

    Raises:
        JobError: none.
    """
    room = 0
    for node in ray.nodes():
        there = node["Resources"] if node["Alive"] else {}
        by_cpu = int(there.get("CPU", 0) // threads)
        room += min(by_cpu, int(there.get("GPU", 0) / gpus)) if gpus else by_cpu
    if room == 0:
        raise JobError(f"no machine of the Ray cluster has room for an actor with {threads} cores and {gpus:g} GPUs")
    return room
