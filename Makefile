# `make run`: everything, from a bare machine to results/quickstart/report.html. `make test`: the proof. Others below.
PRESET ?= quickstart
CORES ?= all

export PATH := $(CURDIR)/.venv/bin:$(PATH)
OVERLAY := $(if $(filter-out quickstart,$(PRESET)),--configfile workflow/presets/$(PRESET).yaml)
REPORT := results/$(PRESET)/report.html

.DEFAULT_GOAL := help
.PHONY: help install run restore verify report test test-slow test-slurm bench lint ui clean
.NOTPARALLEL:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST) | expand -t 12
	@echo "PRESET=$(PRESET) (quickstart, or a file of workflow/presets: $(basename $(notdir $(wildcard workflow/presets/*.yaml)))), CORES=$(CORES)"

install: .venv/installed  ## make .venv from requirements.lock; once, and again when that file changes

.venv/installed: requirements.lock pyproject.toml tools/install
	bash tools/install

run: install  ## run PRESET and build its report; a second time does nothing
	@start=$$(date +%s); snakemake --cores $(CORES) $(OVERLAY) && $(MAKE) --no-print-directory $(REPORT) && \
	echo "Done in $$(($$(date +%s) - start)) s. Open $(CURDIR)/$(REPORT)"

restore: install  ## fetch what this commit's dvc.lock names, and check that it is what this commit asks for
	dvc pull && hamflow check quickstart

verify: install  ## do the work of PRESET again in an empty folder, and compare every byte
	hamflow verify $(PRESET) --cores $(CORES)

report: install  ## build the report of PRESET again
	snakemake $(OVERLAY) --report $(REPORT)

$(REPORT): $(wildcard results/$(PRESET)/tables/* results/$(PRESET)/figures/* workflow/report/*)
	snakemake $(OVERLAY) --report $@

test: install  ## all tests but those of test-slow and test-slurm
	OMP_NUM_THREADS=1 pytest -n auto --dist loadgroup

test-slow: install  ## statistics at the size of a study, faults of whole runs, ways of DVC that differ in little: some minutes
	OMP_NUM_THREADS=1 pytest -n auto --dist loadgroup -m slow tests

test-slurm: install  ## the tests on a real SLURM, which they install and start: as root, on Debian; skipped elsewhere
	OMP_NUM_THREADS=1 pytest -m slurm tests/slurm

bench: install  ## how long the workflow, a job, a training step and the metrics take; compared with their targets
	python tools/bench

lint: install  ## style of Python and Snakemake, and types
	ruff check .
	ruff format --check .
	snakefmt --check --line-length 110 Snakefile workflow/rules
	snakemake --lint
	mypy src

ui: install  ## MLflow's pages of all runs
	mlflow ui --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

clean:  ## caches and logs; keeps .venv, data, checkpoints and results
	rm -rf logs .pytest_cache .ruff_cache .mypy_cache .hypothesis
