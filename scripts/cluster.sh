#!/usr/bin/env bash
# Make a cluster of one node on this machine, with Kubeflow Pipelines and citeflow, and try it: docs/cluster.md.
set -euo pipefail
pip_conf=${PIP_CONF:-}
# As the caller names it: relative to where the script was called.
[[ -z $pip_conf || $pip_conf = /* ]] || pip_conf=$PWD/$pip_conf
cd "$(dirname "$0")/.."
pip_conf=${pip_conf:-pip.conf}

# Looked up on 2026-11-29, each at the address beside it. Kubernetes, Kubeflow Pipelines, the training operator and
# Trainer with its JobSet are those that citeflow ran with on 2026-11-28; kind and k3d themselves were not at hand.
KIND=v0.33.0                         # https://github.com/kubernetes-sigs/kind/releases/tag/v0.33.0
KIND_NODE=kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed  # the same
K3D=v5.9.0                           # https://github.com/k3d-io/k3d/releases
K3S=rancher/k3s:v1.36.1-k3s1         # https://docs.k3s.io/release-notes/v1.36.X, 2026-05-20
PIPELINES=2.17.0                     # https://github.com/kubeflow/pipelines/tree/2.17.0/manifests/kustomize
OPERATOR=v1.9.4                      # https://github.com/kubeflow/trainer/tree/v1.9.4/manifests/overlays
TRAINER=v2.3.0                       # https://github.com/kubeflow/trainer/tree/v2.3.0/manifests/overlays

USAGE='usage: scripts/cluster.sh up kind|k3d [--trainer] [--dry-run]
       scripts/cluster.sh down|doctor [kind|k3d] [--dry-run]'

fail() { # CODE WHAT VALUE HINT
  printf 'error: %s: %s\nhint: %s\n' "$2" "$3" "$4" >&2
  exit "$1"
}

# Print the commands on stdin under a title, or run them until one fails. All of them can be run again, and the last one
# of a step waits for what the next step needs.
step() { # TITLE
  local commands
  commands=$(cat)
  if [ "$dry_run" = yes ]; then
    printf '\n# %s\n%s\n' "$1" "$commands"
    return
  fi
  printf '== %s\n' "$1" >&2
  bash -euo pipefail -c "$commands" < /dev/null ||
    fail 70 'step failed' "$1" "its last lines say why; the same command starts again and repeats nothing that is done"
}

# Nothing is installed here: what is missing is named, with the place to get it.
check_tools() {
  local tool found
  for tool in docker git make kubectl "$flavor" citeflow; do
    command -v "$tool" > /dev/null || fail 69 'not installed' "$tool" "$(place_of "$tool")"
  done
  docker info > /dev/null 2>&1 || fail 69 'no answer' docker "start it: docker info says what is wrong"
  found=$("$flavor" version)
  [[ $found == *"$release"* ]] ||
    printf 'warning: not %s %s, for which the image of the node was chosen: %s\n' \
      "$flavor" "$release" "${found%%$'\n'*}" >&2
}

place_of() { # TOOL
  case $1 in
    docker) echo 'https://docs.docker.com/engine/install/' ;;
    kind) echo "kind $KIND: https://kind.sigs.k8s.io/docs/user/quick-start/" ;;
    k3d) echo "k3d $K3D: https://k3d.io/" ;;
    kubectl | citeflow) echo 'make setup' ;;
    *) echo "the package $1 of this system" ;;
  esac
}

up() {
  if [ "$dry_run" = no ]; then
    check_tools
    [ -f "$pip_conf" ] && [ -r "$pip_conf" ] ||
      fail 66 'no such file' "$pip_conf" 'docs/images.md says what it holds; PIP_CONF=FILE names another'
  fi
  step "a cluster: $node_image" << EOF_STEP
mkdir -p build
$create
$start
$write_kubeconfig
kubectl wait nodes --all --for=condition=Ready --timeout=5m
EOF_STEP
  step "Kubeflow Pipelines $PIPELINES, with the MySQL and the SeaweedFS of its own" << EOF_STEP
kubectl apply -k 'github.com/kubeflow/pipelines/manifests/kustomize/cluster-scoped-resources?ref=$PIPELINES'
kubectl wait crd/applications.app.k8s.io --for=condition=Established --timeout=2m
kubectl apply -k 'github.com/kubeflow/pipelines/manifests/kustomize/env/platform-agnostic?ref=$PIPELINES'
kubectl -n kubeflow wait deployment -l application-crd-id=kubeflow-pipelines --for=condition=Available --timeout=20m
EOF_STEP
  "install_$operator"
  step 'images' << EOF_STEP
make image PIP_CONF=$(printf %q "$pip_conf")
$load ${images[*]}
EOF_STEP
  step 'citeflow: its volume, rights, TensorBoard and reports' << EOF_STEP
docker exec $node sh -c 'mkdir -p /var/lib/citeflow && chown 1000:1000 /var/lib/citeflow && chmod 2775 /var/lib/citeflow'
kubectl -n kubeflow delete job citeflow-volume --ignore-not-found
kubectl apply -k manifests/overlays/kind
kubectl -n kubeflow wait job/citeflow-volume --for=condition=Complete --timeout=5m
kubectl -n kubeflow wait deployment -l app.kubernetes.io/part-of=citeflow --for=condition=Available --timeout=5m
EOF_STEP
  ask_citeflow
  step 'a run of some minutes' << EOF_STEP
citeflow submit --launcher $launcher --workers 2 --set synthetic.num_papers=1000 --param epochs=20 --wait --timeout-minutes 30
EOF_STEP
}

install_operator() {
  step "training operator $OPERATOR, for PyTorchJobs" << EOF_STEP
kubectl apply --server-side -k 'github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=$OPERATOR'
kubectl -n kubeflow rollout status deployment/training-operator --timeout=10m
EOF_STEP
}

install_trainer() {
  step "Trainer $TRAINER with the JobSet of its own, for TrainJobs" << EOF_STEP
kubectl apply --server-side -k 'https://github.com/kubeflow/trainer.git/manifests/overlays/manager?ref=$TRAINER'
kubectl -n kubeflow-system wait deployment --all --for=condition=Available --timeout=10m
kubectl apply -k manifests/trainer
EOF_STEP
}

doctor() {
  [ "$dry_run" = yes ] || check_tools
  ask_citeflow
}

ask_citeflow() {
  step 'what citeflow finds' << EOF_STEP
$write_kubeconfig
citeflow doctor --service-account pipeline-runner
EOF_STEP
}

down() {
  step 'remove the cluster, its volume and its kubeconfig' << EOF_STEP
$delete
rm -f $kubeconfig
EOF_STEP
}

verb=${1:-} flavor='' dry_run=no operator=operator launcher=pytorchjob
for option in "${@:2}"; do
  case $option in
    kind | k3d) flavor=$option ;;
    --dry-run) dry_run=yes ;;
    --trainer) operator=trainer launcher=trainjob ;;
    *) fail 64 'unknown option' "$option" "$USAGE" ;;
  esac
done
case $verb in
  up) [ -n "$flavor" ] || fail 64 'not said' 'kind or k3d' "$USAGE" ;;
  down | doctor) [ -n "$flavor" ] || if [ -e build/k3d.kubeconfig ]; then flavor=k3d; else flavor=kind; fi ;;
  *) fail 64 'unknown command' "$verb" "$USAGE" ;;
esac

tag=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/citeflow/__init__.py)-python3.11
images=(citeflow-{train,step,serve,small,tensorboard}:"$tag")  # the node pulls those of others itself
kubeconfig=build/$flavor.kubeconfig  # so that ~/.kube/config stays as it is
if [ "$flavor" = kind ]; then
  release=$KIND node_image=$KIND_NODE node=citeflow-control-plane
  create="kind get clusters 2> /dev/null | grep -x citeflow > /dev/null ||
  kind create cluster --name citeflow --image $KIND_NODE --kubeconfig $kubeconfig --wait 5m"
  start="docker start $node"
  write_kubeconfig="kind export kubeconfig --name citeflow --kubeconfig $kubeconfig"
  load='kind load docker-image --name citeflow'
  delete="kind delete cluster --name citeflow --kubeconfig $kubeconfig"
else
  release=$K3D node_image=$K3S node=k3d-citeflow-server-0
  create="k3d cluster list citeflow > /dev/null 2>&1 ||
  k3d cluster create citeflow --image $K3S --k3s-arg --disable=traefik@server:0 --kubeconfig-update-default=false --timeout 5m"
  start='k3d cluster start citeflow'
  write_kubeconfig="k3d kubeconfig merge citeflow --output $kubeconfig --overwrite"
  load='k3d image import --cluster citeflow'
  delete='k3d cluster delete citeflow'
fi

export PATH="$PATH:$PWD/.venv/bin" KUBECONFIG=$kubeconfig
if [ "$dry_run" = yes ]; then
  # shellcheck disable=SC2016  # printed as it is to be typed
  printf 'export PATH="$PATH:$PWD/.venv/bin" KUBECONFIG=%s\n' "$kubeconfig"
fi
"$verb"
