#!/usr/bin/env bash
# Test the images as Kubernetes runs them: any uid, no rights, nothing to write to but /tmp, no network.
# Usage: docker/try.sh TRAIN_IMAGE STEP_IMAGE SERVE_IMAGE SMALL_IMAGE TENSORBOARD_IMAGE RAY_IMAGE
set -euo pipefail
train=$1 step=$2 serve=$3 small=$4 tensorboard=$5 ray=$6
confined=(--rm --interactive --user 12345:12345 --read-only --tmpfs '/tmp:mode=1777,exec' --cap-drop ALL
  --security-opt no-new-privileges --network none --shm-size 1g)

echo 'train: two workers on a small graph, without kfp'
docker run "${confined[@]}" "$train" bash -eu -s <<'INSIDE'
cd /tmp
small='--set synthetic.num_papers=400 --set train.minutes=0.1'
path() { python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])'; }
raw=$(python3 -m citeflow download synthetic $small | path)
graph=$(python3 -m citeflow preprocess "$raw" $small | path)
python3 -m citeflow train "$graph" --run-name try --workers 2 $small
if python3 -c 'import kfp' 2> /dev/null; then exit 1; fi
INSIDE

echo 'step: the whole pipeline, as it is uploaded; an account of the platform'
docker run "${confined[@]}" "$step" bash -eu -s <<'INSIDE'
cd /tmp
python3 -m citeflow run --dataset synthetic --set synthetic.num_papers=400 --set train.minutes=0.1
python3 -m citeflow user add somebody --data /tmp/platform
python3 -c 'import citeflow.platform.server, citeflow.platform.backends.kubernetes'
INSIDE

echo 'serve: an answer with reasons, of an index that it makes itself'
docker run "${confined[@]}" "$serve" bash -eu -s <<'INSIDE'
cd /tmp
small='--set synthetic.num_papers=400 --set train.minutes=0.1'
path() { python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])'; }
raw=$(python3 -m citeflow download synthetic $small | path)
graph=$(python3 -m citeflow preprocess "$raw" $small | path)
python3 -m citeflow train "$graph" --run-name try --workers 1 $small
python3 -m citeflow index try --out /tmp/index
python3 -m citeflow serve /tmp/index &
server=$!
until python3 -m citeflow ask http://127.0.0.1:8080 --paper 399; do
  kill -0 $server
  sleep 0.5
done
kill $server
wait $server
INSIDE

echo 'small: the XOR example, without torch'
tar --create examples/xor | docker run "${confined[@]}" "$small" bash -euc '
cd /tmp
tar --extract
python3 examples/xor/run.py
if python3 -c "import torch" 2> /dev/null; then exit 1; fi
'

echo 'tensorboard: answers below its prefix, and only there'
docker run "${confined[@]}" --entrypoint bash "$tensorboard" -eu -s <<'INSIDE'
tensorboard --load_fast=false --reload_multifile=true --bind_all --logdir=/tmp --path_prefix=/tensorboard &
server=$!
python3 - <<'PYTHON'
import time
import urllib.error
import urllib.request

for _ in range(120):
    try:
        assert urllib.request.urlopen("http://127.0.0.1:6006/tensorboard/", timeout=5).status == 200
        break
    except OSError:
        time.sleep(0.5)
try:
    urllib.request.urlopen("http://127.0.0.1:6006/", timeout=5)
    raise SystemExit("it answers outside of its prefix")
except urllib.error.HTTPError as error:
    assert error.code == 404
PYTHON
kill $server
wait $server
INSIDE
echo 'ray: two workers on a small graph, each below an actor'
docker run "${confined[@]}" "$ray" bash -eu -s <<'INSIDE'
cd /tmp
small='--set synthetic.num_papers=400 --set train.minutes=0.1'
path() { python3 -c 'import json, sys; print(json.load(sys.stdin)["path"])'; }
raw=$(python3 -m citeflow download synthetic $small | path)
graph=$(python3 -m citeflow preprocess "$raw" $small | path)
python3 -m citeflow train "$graph" --run-name try --workers 2 --launcher ray $small
INSIDE
echo 'all six work'
