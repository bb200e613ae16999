#!/bin/sh
# Check the plan, then become tritonserver. Arguments go to tritonserver; MODEL_REPOSITORY says what is served.
set -eu
repository=${MODEL_REPOSITORY:-/models}
here=$(dirname "$0")
PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" python3 -m container.check_plan "$repository/nudenet_trt/1/model.plan"
# --strict-readiness: ready only when every model is. The configurations are complete, so nothing is guessed.
exec "$here/batch.sh" tritonserver \
  --model-repository="$repository" \
  --model-control-mode=none \
  --disable-auto-complete-config \
  --strict-readiness=true \
  --exit-on-error=true \
  --metrics-config=summary_latencies=true \
  "$@"
