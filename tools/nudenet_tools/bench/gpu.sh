#!/usr/bin/env bash
# The GPU benchmark on a host without internet: installs from a folder of wheels, then runs tools/bench.py gpu.
# Usage: tools/nudenet_tools/bench/gpu.sh WHEELS [options of tools/bench.py gpu]
#   WHEELS holds what `pip download -d WHEELS -r requirements.txt -r requirements/cuda.txt` brings, plus psutil, and
#   model.onnx, model.dynamic.onnx and model.fp16.onnx (build/export_onnx.py, build/precision.py --precision FP16).
#   Packages that the host's own Python has already are used from there; PYTHON chooses it (default python3, 3.12).
set -euo pipefail
wheels=$(realpath "${1:?usage: tools/nudenet_tools/bench/gpu.sh WHEELS [options]}")
shift
cd "$(dirname "$0")/../../.."
python=${PYTHON:-python3}
venv=${VENV:-out/gpu-venv}

if [ ! -x "$venv/bin/python3" ]; then
  "$python" -m venv --without-pip "$venv"
  packages=$("$venv/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" "$wheels"/*.whl
  chmod +x "$packages"/bin/* && cp "$packages"/bin/perf_analyzer "$venv/bin/"
  # The host's own packages come second.
  "$python" -c 'import site, sys; print("\n".join(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))))' \
    >"$packages/host.pth"
fi
cp "$wheels"/model.onnx "$wheels"/model.dynamic.onnx "$wheels"/model.fp16.onnx model_repository/nudenet_trt/1/
exec "$venv/bin/python3" tools/bench.py gpu "$@"
