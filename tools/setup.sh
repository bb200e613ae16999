#!/usr/bin/env bash
# Set-up: a virtual environment with the pinned requirements, and the few system packages that cannot be in it. As root on
# Debian or Ubuntu it installs those that are missing; otherwise it names them all and goes on.
# Usage: PYTHON=python3.11 tools/setup.sh .venv
#        tools/setup.sh --test-tools    what only the tests need, too
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}

fail() { echo "setup: $*" >&2; exit 1; }
system_packages() { PYTHONPATH=tools "$python" -m nudenet_tools.server.system_packages "$@"; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "needs Linux on x86_64, this is $(uname -sm): tritonserver is published for that only"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "no working Python at '$python'; set PYTHON=/path/to/python3.11"
case "$version" in
  3.11 | 3.12) ;;
  *) fail "needs Python 3.11 or 3.12, '$python' is $version; set PYTHON=/path/to/python3.11" ;;
esac

if [ "$venv" = --test-tools ]; then
  system_packages setup server tests
  exit
fi

system_packages setup server
[ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ] ||
  "$python" -m venv --clear "$venv"
echo "setup: installing the pinned requirements into $venv (Python $version)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  -r requirements.txt -r requirements/dev.txt -r requirements/ui.txt -c requirements/constraints.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable clients/python
