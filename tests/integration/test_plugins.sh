#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiered plugins list and show, as a user sees them: answers on stdout, the rest on
# stderr, exit codes.
set -u
tiered=$TIERED_BIN/tiered
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/plugins"
cp "$TIERED_TEST_PLUGINS"/{good,long-ops,wrong-abi}.so "$folder/plugins"
echo hello > "$folder/plugins/text.so"
export TIERED_PLUGINS=$folder/plugins
failed=0

# check NAME EXPECTED-CODE COMMAND...: leaves stdout in $out and stderr in $err.
check() {
    local name=$1 expected=$2 code
    shift 2
    "$@" > "$folder/out" 2> "$folder/err"
    code=$?
    out=$(cat "$folder/out") err=$(cat "$folder/err")
    if [ $code -ne "$expected" ]; then
        echo "$name: exit code $code, not $expected: $err"
        failed=1
    fi
}

same() {
    if [ "$2" != "$3" ]; then
        printf '%s:\n--- expected\n%s\n--- found\n%s\n' "$1" "$2" "$3"
        failed=1
    fi
}

has() {
    if ! grep -qxF -- "$2" <<< "$3"; then
        printf '%s: no line "%s" in\n%s\n' "$1" "$2" "$3"
        failed=1
    fi
}

check list 0 "$tiered" plugins list
same list "NAME      KIND        VERSION  SUMMARY
good      aggregator  1.2      means of everything
long-ops  aggregator  1.0      a test" "$out"
same "list, refused" "warning: plugin file '$folder/plugins/text.so': is not a shared object
warning: plugin file '$folder/plugins/wrong-abi.so': is built for plugin ABI 7; this program has ABI 0" "$err"

check "list --json" 0 "$tiered" plugins list --json
same "list --json" "good aggregator 1.2 needs_individual_updates,concurrent" "$(python3 -c '
import json, sys
p = json.load(sys.stdin)[0]
print(p["name"], p["kind"], p["version"], ",".join(p["traits"]))' <<< "$out")"

check show 0 "$tiered" plugins show good
same "show, stderr" "" "$err"
has show "kind:     aggregator" "$out"
has show "traits:   needs_individual_updates, concurrent" "$out"
has show "needs:    norms" "$out"
has show "acts on:  parameter" "$out"
has show "file:     $folder/plugins/good.so" "$out"
has show "sha256:   $(sha256sum "$folder/plugins/good.so" | cut -d' ' -f1)" "$out"
has show "beta                       number in [0, 0.5)              0.2       -     share cut a side" "$out"
has show "trim                       integer in [1, 100]             required  rows  count cut a side" "$out"
has show "partition.dirichlet.alpha  number above 0                  1         -     concentration" "$out"

check "show --json" 0 "$tiered" plugins show good --json
same "show --json" "11 0.5 True rows alpha 0 quantile" "$(python3 -c '
import json, sys
o = json.load(sys.stdin)["options"]
n = {x["name"]: x for x in o}
alpha = n["partition"]["alternatives"][1]["options"][0]
print(len(o), n["beta"]["below"], n["trim"]["required"], n["trim"]["unit"],
      alpha["name"], int(alpha["above"]), n["adaptive"]["options"][0]["name"])' <<< "$out")"

check "show without options" 0 "$tiered" plugins show long-ops
has "show without options" "options:  none" "$out"

check "unknown name" 1 "$tiered" plugins show goood
same "unknown name" "error: unknown plugin 'goood'; did you mean 'good'?" "$err"
check "refused name" 1 "$tiered" plugins show text
same "refused name" "error: plugin file '$folder/plugins/text.so': is not a shared object" "$err"
check "later name" 1 "$tiered" plugins show mqtt
same "later name" "error: plugin 'mqtt' is not in this version" "$err"
check "no folder" 1 "$tiered" plugins list --plugins "$folder/nowhere"
same "no folder" "error: there is no plugin folder '$folder/nowhere'" "$err"

# every command that uses plugins takes the folder, which wins over the environment
cat > "$folder/t.yaml" <<'TEXT'
tiered: 1
tiers:
  - name: cloud
    aggregate: [fedavg]
  - name: edge
    fan_out: 2
    trainer: {softmax: {data: d}}
    uplink: [zstd]
TEXT
python3 "${TIERED_SOURCE:-$PWD}/tests/integration/st.py" write "$folder/a" '{"w": ["F32", [1], [2]]}'
shipped=${TIERED_TEST_PLUGINS%/tests/plugins}/lib/tiered
for command in "aggregate --plugin fedavg -o $folder/o $folder/a" \
    "filter --pipe zstd -o $folder/o $folder/a" "validate $folder/t.yaml" "plan $folder/t.yaml"; do
    name=${command%% *}
    check "$name elsewhere" 1 "$tiered" $command
    grep -q "unknown\|not in" <<< "$err" || { echo "$name elsewhere: $err"; failed=1; }
    check "$name --plugins" 0 "$tiered" $command --plugins "$shipped"
    check "$name --plugins nowhere" 1 "$tiered" $command --plugins "$folder/nowhere"
    same "$name --plugins nowhere" "error: there is no plugin folder '$folder/nowhere'" "$err"
done

check "no verb" 2 "$tiered" plugins
same "no verb" "tiered plugins: say 'list', 'show NAME' or 'check FILE'
try 'tiered plugins --help'" "$err"
check "unknown verb" 2 "$tiered" plugins lst
same "unknown verb" "tiered plugins: unknown verb 'lst'; did you mean 'list'?
try 'tiered plugins --help'" "$err"
check "no name" 2 "$tiered" plugins show
check "too many" 2 "$tiered" plugins list good
check "unknown flag" 2 "$tiered" plugins list --nope
check "flag without value" 2 "$tiered" plugins list --plugins
check help 0 "$tiered" plugins --help
has help "usage: tiered plugins list [--plugins DIR] [--json]" "$out"

exit $failed
