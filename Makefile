# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := $(BIN)/genre-lightning
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-real test-thorough test-browser test-slurm faults full-disks gpu-check bench bench-quality ablations conformance gpu-bench outputs lint format types docs dist wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## a virtual environment with the tested versions and the package

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

data/sample.csv: | $(STAMP)
	$(RUN) data sample $@

quickstart: $(STAMP) data/sample.csv ## train and evaluate on the embedded sample: a few minutes, no download
	$(RUN) fit --config configs/quickstart.yaml

test: $(STAMP) ## the tests that need nothing but this checkout
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not real_data and not real_model and not slow and not thorough and not slurm and not browser"

test-real: $(STAMP) ## the tests on real files: set MOVIES_CSV, ENCODER_DIR, LLAMA_TOKENIZER, LLAMA_TINY, LLAMA_REAL
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "(real_data or real_model or slow) and not thorough and not slurm"

test-thorough: $(STAMP) ## further settings of what the other tests show, such as more numbers of ranks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m thorough

test-browser: $(STAMP) ## the page of the service in Chromium: needs Debian's chromium; AXE_JS names axe-core's script
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/serving

test-slurm: $(STAMP) ## jobs on a SLURM cluster of two nodes, brought up here; needs root and Debian's packages
	OMP_NUM_THREADS=1 tests/slurm/cluster.sh run $(BIN)/python -m pytest -s -m "slurm and not thorough" tests/slurm

faults: $(STAMP) ## strike small runs N times (default 100): STRATEGY=ddp DEVICES=2 for ranks, MODEL=qlora for NF4
	$(BIN)/python tools/faults/harness.py --number $(or $(N),100) --strategy $(or $(STRATEGY),auto) --devices $(or $(DEVICES),1) --model $(or $(MODEL),encoder)

full-disks: $(STAMP) ## fill the disk under small runs, N of the run and N of the cache (default 20); needs root
	OMP_NUM_THREADS=1 $(BIN)/python tools/faults/full_disks.py --number $(or $(N),20)

gpu-check: ## what only a GPU can show: needs PYTHON with the libraries and a CUDA GPU, not the lock
	$(PYTHON) tools/gpu/check.py

bench: $(STAMP) ## training speed beside Hugging Face Trainer on this CPU: set MOVIES_CSV and ENCODER_DIR for real files
	$(BIN)/python benchmarks/training/bench.py

bench-quality: $(STAMP) ## validation mAP of an epoch of each side of the benchmark, over seeds: most of an hour
	$(BIN)/python benchmarks/training/quality.py

ablations: $(STAMP) ## measure what each input and technique adds: runs without a result; set MOVIES_CSV, ENCODER_DIR, LLAMA_REAL
	$(BIN)/python benchmarks/ablations/run.py $(MOVIES_CSV) $(if $(ENCODER_DIR),--encoder $(ENCODER_DIR)) $(if $(LLAMA_REAL),--decoder $(LLAMA_REAL))

conformance: $(STAMP) ## cut and resume a small training here and with its peers, each in its own environment: an hour
	$(BIN)/python benchmarks/resume/conformance.py

gpu-bench: ## training speed on a CUDA GPU, DistilBERT and a 7B Llama: needs PYTHON with the libraries, not the lock
	$(PYTHON) benchmarks/training/bench.py --device cuda --rounds 1

outputs: $(STAMP) ## write what the commands print now into the documentation's console blocks
	$(BIN)/python tools/shown_outputs.py --write

lint: $(STAMP) ## ruff: rules and format; phrases that are not plain English
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/language.py

format: $(STAMP) ## put the code in ruff's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy
	$(BIN)/mypy

docs: $(STAMP) ## the documentation's site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dist: $(STAMP) ## build the sdist and the wheel into dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m pip install --quiet --disable-pip-version-check twine==7.0.0
	$(BIN)/python -m twine check --strict dist/*

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation

clean: ## remove what the other targets made, runs and caches excepted
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
