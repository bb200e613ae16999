#!/usr/bin/env bash
# A docker engine for the container tests, on a Debian or Ubuntu machine that is thrown away afterwards, as in CI. As root it
# installs what is missing and starts dockerd; otherwise it leaves the machine as it is. `make test` works without, and says
# what it did not run.
set -euo pipefail
docker info >/dev/null 2>&1 && exit
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "engine: no docker engine, and only root may start one"; exit; }
missing=()
command -v dockerd >/dev/null || missing+=(docker.io)
command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || missing+=(docker-compose)
command -v debootstrap >/dev/null || missing+=(debootstrap)
if [ ${#missing[@]} -gt 0 ]; then
  echo "engine: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; }; } >/dev/null 2>&1 ||
    { echo "engine: could not install ${missing[*]}"; exit; }
fi
log=$(mktemp -t dockerd.XXXXXX)
# Debian's package starts the service where there is an init; in a container nobody does.
# All of its output goes to the log: whoever reads ours through a pipe would wait for it for ever.
{ docker info >/dev/null 2>&1 || exec setsid nohup dockerd; } >"$log" 2>&1 </dev/null &
for _ in $(seq 60); do
  docker info >/dev/null 2>&1 && { echo "engine: docker answers"; exit; }
  sleep 0.5
done
echo "engine: dockerd does not start here: $(tail -n 1 "$log")"
