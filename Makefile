# For a fresh machine with git, make and Python 3.11 or later.
#
#   make test     the tests, on SQLite; DATABASE_URL=postgres://... make test for another database
#   make demo     the example shop at work, with workers that are killed meanwhile
#   make serve    the example shop and its admin, with a worker, until Ctrl-C
#   make lint     style, types, missing migrations
#   make clean    remove what these have made
#
# PYTHON=python3.13 picks the Python of .venv, PORT=8001 the port of make serve,
# ARGS="-k retry -x" goes to pytest.

PYTHON ?= python3
PORT ?= 8000
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
SHOP := $(BIN)/python example_project/manage.py
# Whatever example_project/.env says: SQLite, mails in files, nothing kept from the last time.
# The lease is short, so that the second worker takes over soon, but not shorter: two imports
# kept another writer of SQLite waiting for up to 4.5 s, and at TASKS_LEASE=5 a worker that
# can't renew for 3 s ends its own tasks.
DEMO := DATABASE_URL= EMAIL_HOST= DEBUG=True TASKS_BACKEND=django_bgtasks.DatabaseBackend

.PHONY: test demo serve lint clean

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

demo: $(READY)
	rm -rf .demo
	$(DEMO) DATA_DIR="$(CURDIR)/.demo" TASKS_LEASE=15 $(SHOP) demo

serve: $(READY)
	@exec env DATA_DIR="$(CURDIR)/.serve" TASKS_BACKEND=django_bgtasks.DatabaseBackend \
		$(SHOP) serve --port $(PORT)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -m django makemigrations --check --dry-run --pythonpath .
	DATA_DIR="$(CURDIR)/.demo" $(SHOP) makemigrations --check --dry-run

clean:
	rm -rf .venv .demo .serve build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed; $(PYTHON) is another. Try: make PYTHON=python3.13"; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) can't make virtual environments. On Debian and Ubuntu, type:"; \
		echo "    sudo apt install python3-venv"; \
		exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
