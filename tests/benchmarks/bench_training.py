"""How fast fine-tuning is beside transformers' example recipe for text classification: same prompts, same encoder,
same machine, one run, ratios; and how much memory each way takes.

    make bench-training

The recipe: batches of 32 random prompts, cut at 256 tokens or at the encoder's limit of 512, and padded to the longest
of the batch, every weight trained, with the encoder's own rate of dropout, by the Trainer as it comes. A second line
leaves out dropout and freezes the token embeddings, as ours does. Ours reads as many tokens of a prompt. What counts is
useful tokens a second: those that are no padding. Each way runs in a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data.summary import markdown_table

PROMPTS = 320
WARM_UP = 64
RECIPE_BATCH = 32
CUTS = (256, 512)


def main(data: str) -> None:
    """Run each way in a process of its own; print useful tokens a second, ratios and peak memory."""
    ways = ("recipe", "recipe, no dropout, embeddings frozen", "promptassay")
    rows = []
    for cut in CUTS:
        results = {}
        for way in ways:
            command = [sys.executable, "-m", "tests.benchmarks.bench_training", data, way, str(cut)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[way] = json.loads(printed.splitlines()[-1])
        slowest = results["recipe"]["rate"]
        rows += [
            [
                str(cut),
                way,
                f"{found['rate']:,.0f}",
                f"{found['rate'] / slowest:.2f}",
                f"{found['useful']:.0%}",
                f"{found['gib']:.1f}",
            ]
            for way, found in results.items()
        ]
    rate = "useful tokens a second"
    print(markdown_table(["cut", "way", rate, "against the recipe", "no padding", "peak memory, GiB"], rows))


def run(data: str, way: str, cut: int) -> None:
    """One way over prompts cut at `cut` tokens; prints a line of JSON."""
    from training.config import load_run
    from training.finetune import quiet, read_splits

    config = load_run(Path("configs/default.yaml"))
    # As many tokens of a prompt as the recipe reads.
    changes = {"max_prompts": PROMPTS + WARM_UP, "epochs": 1, "tokens_per_prompt": cut}
    windows = config.windows.model_copy(update={"size": min(cut // 2, config.windows.size), "overlap": 16})
    config = config.model_copy(update={"fit": config.fit.model_copy(update=changes), "windows": windows})
    splits = read_splits(config, Path(data))
    quiet()
    clock = _Clock(way)
    with tempfile.TemporaryDirectory() as folder:
        if way == "promptassay":
            _ours(config, splits, Path(folder), clock)
        else:
            _recipe(config, data, splits, Path(folder), clock, cut, spared=way.endswith("frozen"))
    print(json.dumps(clock.result()))


class _Clock:
    """Counts tokens of each step and times all steps after the warm-up."""

    def __init__(self, way: str) -> None:
        self.way, self.prompts, self.useful, self.padded, self.started, self.seconds = way, 0, 0, 0, 0.0, 0.0

    def batch(self, prompts: int, masks: list[Any]) -> None:
        if self.prompts >= WARM_UP:
            self.useful += sum(int(mask.sum()) for mask in masks)
            self.padded += sum(mask.numel() for mask in masks)
        self.prompts += prompts

    def step(self) -> None:
        if self.prompts >= WARM_UP and not self.started:
            self.started, self.useful, self.padded = time.perf_counter(), 0, 0
        elif self.started:
            self.seconds = time.perf_counter() - self.started

    def result(self) -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"rate": self.useful / self.seconds, "useful": self.useful / self.padded, "gib": peak}


def _callback(clock: _Clock) -> Any:
    from transformers import TrainerCallback

    class Timed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.step()

    return Timed()


def _ours(config: Any, splits: Any, folder: Path, clock: _Clock) -> None:
    from training.fit import make_trainer
    from training.model import PromptModel, open_network

    model = PromptModel(open_network(splits.encoder, config.encoder))
    trainer = make_trainer(model, config, splits.train, splits.validation, 0, folder)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.callback_handler.callbacks = [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__name__ not in ("KeepBest", "EarlyStoppingCallback")
    ]
    pack = trainer.data_collator

    def counted(rows: Any) -> Any:
        step = pack(rows)
        clock.batch(len(rows), [batch["attention_mask"] for batch in step["batches"]])
        return step

    trainer.data_collator = counted
    trainer.add_callback(_callback(clock))
    trainer.train()


def _recipe(config: Any, data: str, splits: Any, folder: Path, clock: _Clock, cut: int, spared: bool) -> None:
    from transformers import AutoConfig, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    from training.encode import choose_prompts, label_row, load_split, records_of
    from training.model import open_network

    tokenizer = AutoTokenizer.from_pretrained(splits.encoder.folder)
    records = records_of(choose_prompts(load_split(Path(data), "train"), PROMPTS + WARM_UP, config.seed))
    rows = [
        tokenizer(record.rendered, truncation=True, max_length=cut)
        | {"labels": [max(0.0, value) for value in label_row(record.labels, record.judged)]}
        for record in records
    ]
    encoder = config.encoder.model_copy(update={"freeze_embeddings": spared})
    usual = AutoConfig.from_pretrained(splits.encoder.folder).hidden_dropout_prob
    network = open_network(splits.encoder, encoder, dropout=0.0 if spared else usual)
    collate = DataCollatorWithPadding(tokenizer)

    def counted(batch: Any) -> Any:
        padded = collate(batch)
        clock.batch(len(batch), [padded["attention_mask"]])
        return padded

    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=RECIPE_BATCH,
        num_train_epochs=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(network, arguments, data_collator=counted, train_dataset=rows, callbacks=[_callback(clock)]).train()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1])
