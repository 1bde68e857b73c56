# Every target sets up what it needs. `make` alone explains them.
PYTHON ?= python3
PY := .venv/bin/python
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

MODEL ?= build/demo/model

CODE := $(wildcard inference/*.py inference/*/*.py data/*.py training/*.py training/*/*.py training/report/templates/*)
SEED := $(filter-out data/seed/suite/%,$(wildcard data/seed/*/*.jsonl))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help install demo train test test-all check format bench bench-job bench-data bench-training bench-evaluation clean

help:  ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.train  ## set up .venv for training and scoring

demo: build/demo/evaluation/metrics.json build/demo/scored.parquet  ## the whole way in minutes: data, training, evaluation, scoring
	@$(PY) -m training show build/demo

train: build/default/evaluation/metrics.json build/default/scored.parquet  ## the full run of configs/default.yaml, into build/default
	@$(PY) -m training show build/default

test: .venv/.dev  ## run the tests (under 5 minutes)
	$(PY) -m pytest -n 2 -m "not slow"

test-all: .venv/.dev  ## run all tests, the long ones too (under 15 minutes)
	$(PY) -m pytest -n 2

check: .venv/.dev  ## lint, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: .venv/.dev  ## put the code into its format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(addprefix $(MODEL)/,openvino/export.json openvino-bf16/export.json onnx/export.json gate/gate.json)  ## measure speed against transformers' own pipeline; MODEL=build/default/model for another artefact
	$(PY) -m tests.benchmarks.bench_scoring $(MODEL)
	$(PY) -m tests.benchmarks.bench_cascade $(MODEL)
	$(PY) -m tests.benchmarks.bench_start $(MODEL)

bench-job: .venv/.dev  ## measure memory and rate of score jobs up to a million rows (half an hour)
	$(PY) -m tests.benchmarks.bench_job

bench-data: .venv/.dev  ## measure how fast data is checked and built, and how both grow
	$(PY) -m tests.benchmarks.bench_data

bench-training: build/default/data/manifest.json  ## measure fine-tuning against transformers' example recipe
	$(PY) -m tests.benchmarks.bench_training build/default/data

bench-evaluation: build/demo/model/assay.json  ## measure what evaluating 20,000 prompts costs beside scoring them
	$(PY) -m tests.benchmarks.bench_evaluation build/demo/model

clean:  ## remove build/ (the environment stays)
	rm -rf build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("error: Python 3.11 or newer is needed, and this is %s; say which with PYTHON=…" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/.train: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv; the first time takes some minutes"
	$(PIP_INSTALL) --editable '.[train,lora,sweep,tracking]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "installing into .venv; the first time takes some minutes"
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ .venv/.train

# A run of NAME lies in build/NAME and follows configs/NAME.yaml. A killed run goes on where it stopped.
build/%/data/manifest.json: configs/data/seed.yaml $(SEED) $(wildcard data/*.py) | .venv/.train
	$(PY) -m data build configs/data/seed.yaml --out build/$*/data --overwrite

build/%/model/assay.json: build/%/data/manifest.json configs/%.yaml configs/default.yaml $(CODE) | .venv/.train
	$(PY) -m training train configs/$*.yaml --data build/$*/data --out build/$*/model --resume --overwrite
	@touch $@

# Other runtimes are kept only if they decide as torch does: one that is refused must not stop the others.
build/%/model/openvino/export.json: build/%/model/assay.json | .venv/.dev
	$(PY) -m inference export build/$*/model --backend openvino

build/%/model/openvino-bf16/export.json: build/%/model/openvino/export.json
	-$(PY) -m inference export build/$*/model --backend openvino --bf16

build/%/model/onnx/export.json: build/%/model/assay.json | .venv/.dev
	$(PY) -m inference export build/$*/model --backend onnx

build/%/model/gate/gate.json: build/%/model/assay.json build/%/data/manifest.json | .venv/.dev
	-$(PY) -m training gate build/$*/model --data build/$*/data

build/%/evaluation/metrics.json: build/%/model/assay.json | .venv/.train
	$(PY) -m training evaluate build/$*/model build/$*/data --out build/$*/evaluation

build/%/scored.parquet: build/%/model/assay.json data/examples.jsonl | .venv/.train
	$(PY) -m inference score data/examples.jsonl --model build/$*/model --output $@ --overwrite --keep text
