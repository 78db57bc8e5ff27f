# One command each. `just` alone lists them.

default:
    @just --list

# The default test suite; `just test -m slow` runs the long ones.
test *args:
    pytest {{args}}

lint:
    ruff check .
    ruff format --check .
    mypy

fix:
    ruff check --fix .
    ruff format .

# The committed JSON Schema of recipes, and the pages made from the code.
docs:
    diffloom schema -o recipes/recipe.schema.json

# Everything that CI runs.
check:
    bash .ci/run

bench:
    python -m tests.benchmarks
