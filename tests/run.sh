#!/usr/bin/env bash
# Sets up what is missing, then runs the linters and the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash setup_flow.sh --install
PATH="$PWD/.venv/bin:$PATH"
if ! cmp -s constraints.txt .venv/installed-for-tests.txt; then
  echo "Installing the test tools into .venv; this happens once."
  pip=(python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt)
  "${pip[@]}" pip # one that knows groups
  "${pip[@]}" --group dev
  cp constraints.txt .venv/installed-for-tests.txt
fi

ruff check .
ruff format --check .
mypy
shellcheck setup_flow.sh tests/run.sh
python -m pytest "$@"
