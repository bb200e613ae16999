#!/usr/bin/env bash
# Set-up: a virtual environment with the pinned requirements, and the one system library Triton's Python backend needs.
# Usage: PYTHON=python3.11 tools/setup.sh .venv
#        tools/setup.sh --test-tools    the programs that only the tests start: Prometheus, nginx, kubectl, docker-compose,
#                                Chromium
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}

fail() { echo "setup: $*" >&2; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "needs Linux on x86_64, this is $(uname -sm): tritonserver is published for that only"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "no working Python at '$python'; set PYTHON=/path/to/python3.11"
case "$version" in
  3.10 | 3.11 | 3.12) ;;
  *) fail "needs Python 3.10, 3.11 or 3.12, '$python' is $version; set PYTHON=/path/to/python3.11" ;;
esac

# Debian and Ubuntu install packages only where this may: as root.
need_package() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing $1"
    { apt-get install -y -qq --no-install-recommends "$1" ||
      { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1"; }; } >/dev/null 2>&1 ||
      fail "could not install the system package $1; install it and run this again"
  else
    fail "the system package $1 is missing ($2); install it (Debian, Ubuntu: sudo apt-get install $1) and run this again"
  fi
}

if [ "$venv" = --test-tools ]; then
  export PATH="$PATH:/usr/sbin"
  command -v promtool >/dev/null || need_package prometheus "the tests start it"
  command -v nginx >/dev/null || need_package nginx-light "the tests start it as a gRPC proxy"
  command -v kubectl >/dev/null || need_package kubernetes-client "the tests render deploy/kubernetes with kubectl kustomize"
  docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null ||
    need_package docker-compose "the tests check deploy/compose.yaml with it"
  command -v chromium >/dev/null || command -v google-chrome >/dev/null ||
    need_package chromium "the tests open the page of make ui in it"
  exit
fi

"$python" -c 'import ensurepip, venv' 2>/dev/null || need_package "python$version-venv" "to create $venv"
"$python" tools/nudenet_tools/server/libpython.py >/dev/null || need_package "libpython$version" "Triton's Python backend embeds libpython$version.so.1.0"
"$python" tools/nudenet_tools/server/libpython.py >/dev/null || fail "libpython$version.so.1.0 still not found"

[ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ] ||
  "$python" -m venv --clear "$venv"
echo "setup: installing the pinned requirements into $venv (Python $version)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  -r requirements.txt -r requirements/dev.txt -r requirements/ui.txt -c requirements/constraints.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable clients/python
