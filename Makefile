.PHONY: setup solve test coverage lint

# Processes that run tests: a core each, and some gigabytes for those that start models.
WORKERS = 2

# Solves the packaged problems with the packaged models: what this project is about, in one minute.
solve: .venv/ready
	.venv/bin/infer solve --strategy astar --budget 4k

# The whole test suite: first the pure tests, then those that start models.
test: .venv/ready
	.venv/bin/python -m pytest -n $(WORKERS) -m "not models"
	.venv/bin/python -m pytest -n $(WORKERS) -m models

# Which lines the pure tests run. Tracing them doubles the time that tests take.
coverage: .venv/ready
	.venv/bin/python -m pytest -m "not models" --cov --cov-report=term

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

setup: .venv/ready

.venv/ready: pyproject.toml scripts/setup.py
	python3 scripts/setup.py
