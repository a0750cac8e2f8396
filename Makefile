# Every target does its own set-up in .venv from a bare clone: python3 and make are enough.
PYTHON ?= python3
BIN := .venv/bin
# Runs of tests and timings take one thread each; pytest runs as many processes as there are cores.
ONE := OMP_NUM_THREADS=1
.PHONY: setup demo test test-slow bench papers lint clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "mcatrain needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@rm -rf demo
	$(BIN)/mcatrain compare --task mlp --data digits --epochs 10 --jobs 2 \
	  --rules fp32,mca@nandakumar2018,rpu@nandakumar2018,rpu@gokmen2016 --seeds 0 --out demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup lint
	$(ONE) $(BIN)/pytest -n auto

test-slow: setup
	$(ONE) $(BIN)/pytest -n auto -m slow

bench: setup
	$(ONE) $(BIN)/python -m benchmarks

# Tables and figures of the papers, one after the other: make papers BUDGET=hour
BUDGET ?= smoke
PAPERS := $(filter-out __init__,$(basename $(notdir $(wildcard benchmarks/papers/*_*.py))))
papers: setup
	for name in $(PAPERS); do \
	  $(ONE) $(BIN)/python -m benchmarks.papers.$$name --budget $(BUDGET) || exit; done

clean:
	rm -rf .venv demo
