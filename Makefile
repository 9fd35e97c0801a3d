# traind: `make help` lists what there is. Needs Python 3.11 or later, and make.

PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; done)
BIN := .venv/bin
READY := .venv/.ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Hundreds of processes are started: each would compile all sources anew if no bytecode were kept.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(READY) ## train with SGD, Nesterov and Adam through the real service (DATA=digits|fashion_mnist)
	@$(BIN)/traind demo $(if $(DATA),--data $(DATA))

up: $(READY) ## run the service in the foreground; prints URL and key
	@$(BIN)/traind up

# In six processes, or in one for up to two files: ARGS=-n0, or -n8, is another choice.
test: $(READY) ## the tests, side by side on embedded servers, or on TRAIND_DATABASE_URL and TRAIND_REDIS_URL (ARGS=path)
	$(BIN)/pytest $(ARGS)

# The machine's own servers, for `make check` and CI. Only the tests that depend on the servers' versions; each makes and
# drops its own database and keys.
test-external: $(READY) ## what depends on the servers' versions again, on this machine's PostgreSQL and Redis
	TRAIND_DATABASE_URL="$${TRAIND_DATABASE_URL:-postgresql:///postgres?host=/var/run/postgresql}" \
	TRAIND_REDIS_URL="$${TRAIND_REDIS_URL:-redis://127.0.0.1:6379/0}" \
	$(BIN)/pytest -m servers $(ARGS)

test-all: check ## `make check`, then all cases that it samples: other CPU levels, and exact resume (half an hour)
	$(BIN)/pytest tests/optim_core/test_levels.py tests/optim_core/test_sanitizer.py --whole $(ARGS)
	$(BIN)/pytest tests/training/test_exact_resume.py --resume-cases all -p no:randomly $(ARGS)

lint: $(READY) ## format check, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

MAY_CREATE = psql -d postgres -Atc 'select rolcreatedb or rolsuper from pg_roles where rolname = current_user'
check: lint test ## what CI runs; where this machine has PostgreSQL and Redis, or CI is set, on those too
	@if [ -n "$$CI" ] || { [ "$$($(MAY_CREATE))" = t ] && redis-cli ping >/dev/null; } 2>/dev/null; then $(MAKE) test-external; \
	else echo "no Redis, or no PostgreSQL that lets you make databases: the tests are not repeated on them"; fi

fmt: $(READY) ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(READY) ## kill everything at random for SECONDS=120, SEED=n, and judge what became of the jobs
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),120) $(if $(SEED),--seed $(SEED))

docs: $(READY) ## write the pages that are made from the code
	$(BIN)/python -m traind.spec_doc docs/spec.md
	$(BIN)/python -m api.reference docs/api.md
	$(BIN)/python -m jobs.settings_doc docs/configuration.md
	$(BIN)/python -m jobs.states_doc docs/job-states.md

migrate: $(READY) ## migrate the database of TRAIND_DATABASE_URL
	$(BIN)/traind db upgrade

bench: $(READY) ## the benchmarks (quiet machine!)
	$(BIN)/python -m bench.overhead
	$(BIN)/python -m bench.optim
	$(BIN)/python -m bench.recovery
	$(BIN)/python -m bench.threads
	$(BIN)/python -m bench.claims

clean: ## remove .venv and everything built
	rm -rf .venv build dist *.egg-info optim_core/_kernel*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# A torch that is there already is kept where the constraints allow its version: pip finds the requirement met. The
# native kernel is built here, where there is a C compiler.
$(READY): pyproject.toml constraints.txt setup.py $(wildcard optim_core/kernel/*.[ch]) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "traind needs Python 3.11 or later with venv (Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.PHONY: docs help demo up test test-external test-all lint check fmt chaos migrate bench clean
