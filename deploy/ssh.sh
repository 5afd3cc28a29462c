#!/usr/bin/env bash
# A bench over hosts that you reach by ssh, with this machine as head:
#   deploy/ssh.sh gpu1 gpu2 -- bench --datasets all --adapters all --budget standard
# Every host needs the same harness, and the same token in ~/.ray/auth_token (docs/security.md). HARNESS_BIN is the folder
# of `ray` and `harness` on the hosts (default: the PATH of `ssh HOST env`, without ~/.profile), HARNESS_HEAD this
# machine's address for them, HARNESS_PORT the port of the head (default 6379). Ray ends with the script, on all hosts.
#
# Checked: bash -n, and a run against fake ssh, ray and harness commands (tests/deploy/test_ssh.py). Not yet run on real
# hosts.
set -euo pipefail

hosts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do hosts+=("$1"); shift; done
if [ ${#hosts[@]} -eq 0 ] || [ $# -lt 2 ]; then
    echo "usage: $0 HOST [HOST ...] -- bench [OPTION ...]" >&2
    exit 2
fi
shift

export RAY_AUTH_MODE=token
head=${HARNESS_HEAD:-$(hostname -I | cut -d ' ' -f 1)} port=${HARNESS_PORT:-6379}
path=${HARNESS_BIN:+PATH=$HARNESS_BIN:\$PATH}

children=() names=() logs=$(mktemp -d)
finish() {
    for child in "${children[@]}"; do kill -TERM "$child" 2>/dev/null || true; done
    wait
    rm -rf "$logs"
}
trap finish EXIT

ray start --head --node-ip-address="$head" --port="$port" --include-dashboard=false --block >"$logs/0" 2>&1 &
children+=($!) names+=("this machine")
for host in "${hosts[@]}"; do
    # -tt: the terminal's end, when ssh ends, stops Ray on the host
    ssh -tt "$host" "$path RAY_AUTH_MODE=token ray start --address=$head:$port --block" \
        >"$logs/${#children[@]}" 2>&1 </dev/null &
    children+=($!) names+=("$host")
done
until ray status --address "$head:$port" 2>/dev/null | grep -c node_ | grep -qx $((${#hosts[@]} + 1)); do
    for i in "${!children[@]}"; do
        kill -0 "${children[$i]}" 2>/dev/null && continue
        { echo "Ray ended on ${names[$i]} before the bench began. Its last lines:"; tail -n 5 "$logs/$i"; } >&2
        exit 1
    done
    sleep 2
done
harness "$@" --address "$head:$port" &
bench=$!
trap 'kill -TERM "$bench"' TERM
trap : INT # a terminal's Ctrl-C has reached the bench already; a second signal would end it at once
status=0
wait "$bench" || status=$?
# a signal ends `wait` early: wait for the bench itself, which saves its running trials
while kill -0 "$bench" 2>/dev/null; do wait "$bench" && status=0 || status=$?; done
exit "$status"
