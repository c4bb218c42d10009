#!/usr/bin/env bash
# Deploys and triggers the example flows in three namespaces: without a cluster
# (the default), or on the Argo that Metaflow is configured for.
set -euo pipefail
unset ON_CLUSTER
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'HELP'
Usage: bash setup_flow.sh [--cluster | --install | --help]

Deploys parent_flow.py and child_flow.py in a production, a test and a user
namespace, triggers the parent in each, and checks that each event starts the
child of its own namespace and no other.

  (nothing)   rehearse all of it on this machine, without a cluster
  --cluster   deploy and trigger on the Argo that your Metaflow is configured for;
              it says before each command what is about to be deployed
  --install   only make .venv (Python 3.10 or newer) from the pinned versions
  --help      show this text

Exit status: 0 where all three events started their own child only.
HELP
}

find_python() {
  local candidate
  for candidate in python3 python python3.13 python3.12 python3.11 python3.10; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "setup_flow.sh needs Python 3.10 or newer, and found none on your PATH." >&2
  return 1
}

# The last thing that a complete installation writes is the list of what it installed.
install() {
  local installed=.venv/installed.txt python
  if ! cmp -s constraints.txt "$installed" || ! .venv/bin/python -c 'import metaflow'; then
    python=$(find_python)
    echo "Installing Metaflow into .venv; this happens once."
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt metaflow boto3 kubernetes 'moto[s3]' flask flask-cors
    cp constraints.txt "$installed"
  fi
  PATH="$PWD/.venv/bin:$PATH"
}

announce() {
  if [[ -n ${ON_CLUSTER:-} ]]; then
    echo
    echo "About to $1."
  fi
}

# Shows the command, and what it printed where it failed or where a cluster is real.
run() {
  local output word
  printf '\n$'
  for word in "$@"; do
    case "$word" in
      *[!A-Za-z0-9_./-]*) printf " '%s'" "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '\n'
  if [[ -n ${ON_CLUSTER:-} ]]; then
    "$@"
  elif ! output=$("$@" 2>&1); then
    echo "$output"
    return 1
  fi
}

scenarios() {
  local user
  announce "deploy HelloFlowUpstream, which will publish foo.prod.bar.food"
  run python parent_flow.py --branch bar --production argo-workflows create
  announce "deploy HelloFlowDownstream, which will listen to foo.prod.bar.food"
  run python child_flow.py --config-value project '{"branch": "bar", "production": true}' argo-workflows create
  announce "start HelloFlowUpstream in foo.prod.bar"
  run python parent_flow.py --branch bar --production argo-workflows trigger

  announce "deploy HelloFlowUpstream, which will publish foo.test.baaz.food"
  run python parent_flow.py --branch baaz argo-workflows create
  announce "deploy HelloFlowDownstream, which will listen to foo.test.baaz.food"
  run python child_flow.py --config-value project '{"branch": "baaz"}' argo-workflows create
  announce "start HelloFlowUpstream in foo.test.baaz"
  run python parent_flow.py --branch baaz argo-workflows trigger

  user=$(python -c 'from namespaced_trigger import namespaced_trigger as t; print(t.event_name("food", project="foo"))')
  announce "deploy HelloFlowUpstream, which will publish $user"
  run python parent_flow.py argo-workflows create
  announce "deploy HelloFlowDownstream, which will listen to $user"
  run python child_flow.py argo-workflows create
  announce "start HelloFlowUpstream in ${user%.food}"
  run python parent_flow.py argo-workflows trigger
}

check() {
  python - "$1" <<'PYTHON'
import json
import re
import sys

report = json.load(open(sys.argv[1]))
namespaces = {run["name"]: f"{run['project']}.{run['branch']}" for run in report["runs"]}
names = sorted(event["name"] for event in report["events"])
expected = [r"foo\.prod\.bar\.food", r"foo\.test\.baaz\.food", r"foo\.user\..+\.food"]
if len(names) != 3 or not all(map(re.fullmatch, expected, names)):
    sys.exit(f"Three events were expected, and these were published: {', '.join(names)}")
for event in report["events"]:
    own = event["name"].removesuffix(".food")
    started = [namespaces[run] for run in event["started"]]
    if started != [own] or namespaces[event["publisher"]] != own:
        sys.exit(f"{event['name']} started HelloFlowDownstream in {started}, not in {own} alone")
print("\nEach of the three events started HelloFlowDownstream in its own namespace only.")
PYTHON
}

rehearse() {
  local folder
  folder=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of this call
  trap "rm -rf '$folder'" EXIT
  export -f announce run scenarios
  python -m rehearsal --report "$folder/report.json" bash -euo pipefail -c scenarios
  check "$folder/report.json"
}

if [[ $# -gt 1 ]]; then
  echo "setup_flow.sh takes one option, and got: $*" >&2
  usage >&2
  exit 2
fi
case "${1:-}" in
  "")
    install
    rehearse
    ;;
  --cluster)
    install
    if ! python -c 'from kubernetes import config; config.load_config()' >/dev/null 2>&1; then
      echo "There is no Kubernetes cluster that Metaflow could reach. Configure one first, see" >&2
      echo "https://docs.metaflow.org/production/scheduling-metaflow-flows/scheduling-with-argo-workflows" >&2
      exit 1
    fi
    export ON_CLUSTER=1
    scenarios
    echo
    echo "Look at your Argo: each run of HelloFlowUpstream starts one of HelloFlowDownstream,"
    echo "in its own namespace. To take a deployment away, write delete in the place of create."
    ;;
  --install)
    install
    ;;
  --help | -h)
    usage
    ;;
  *)
    echo "setup_flow.sh does not know $1." >&2
    usage >&2
    exit 2
    ;;
esac
