#!/usr/bin/env bash
# Pins everything that the requirements pull in: writes requirements/constraints.txt; versions that still fit stay.
# Needs uv (pip install uv). Left out: image-*.txt, complete lists or subsets for images.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(ls requirements/*.txt | grep -v -e constraints -e image-)
"${UV:-uv}" pip compile --quiet --universal --python-version 3.11 --no-annotate \
  --custom-compile-command tools/pin.sh requirements.txt "${files[@]}" -o requirements/constraints.txt "$@"
