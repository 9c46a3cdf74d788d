#!/usr/bin/env bash
# Tries the images out as Kubernetes will run them: any uid, no rights, nothing to write to but /tmp, no network.
# Usage: docker/try.sh TRAIN_IMAGE STEP_IMAGE TENSORBOARD_IMAGE
set -euo pipefail
train=$1 step=$2 tensorboard=$3
confined=(--rm --user 12345:12345 --read-only --tmpfs /tmp:mode=1777,exec --cap-drop ALL
  --security-opt no-new-privileges --network none --shm-size 1g)
small=(--set synthetic.papers=400 --set train.minutes=0.1)

echo 'train: two workers on a small graph, without kfp'
docker run "${confined[@]}" --interactive "$train" bash -eu -s -- "${small[@]}" <<'INSIDE'
cd /tmp
raw=$(python3 -m citeflow download synthetic "$@")
graph=$(python3 -m citeflow preprocess "$raw" "$@")
python3 -m citeflow train "$graph" --run-name try --workers 2 "$@"
if python3 -c 'import kfp' 2> /dev/null; then exit 1; fi
INSIDE

echo 'step: the whole pipeline, as it is uploaded'
docker run "${confined[@]}" --workdir /tmp "$step" python3 -m citeflow run --dataset synthetic "${small[@]}"

echo 'tensorboard: answers below its prefix'
docker run "${confined[@]}" --interactive --entrypoint bash "$tensorboard" -eu -s <<'INSIDE'
tensorboard --logdir=/tmp --host=127.0.0.1 --path_prefix=/tensorboard --load_fast=false &
python3 - <<'PYTHON'
import time
import urllib.request

for _ in range(60):
    try:
        page = urllib.request.urlopen("http://127.0.0.1:6006/tensorboard/", timeout=5)
        break
    except OSError:
        time.sleep(1)
assert page.status == 200
PYTHON
kill %1
INSIDE
