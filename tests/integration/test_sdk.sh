#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The installed tree as a plugin's author meets it: it runs wherever it lies, and the
# example builds against it by CMake and by pkg-config, passes the kit, and works.
set -u
source=${TIERED_SOURCE:-$PWD}
st="python3 $source/tests/integration/st.py"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
unset TIERED_PLUGINS
failed=0

# must WHAT COMMAND...: stops at what the rest needs.
must() {
    local what=$1
    shift
    if ! "$@" > "$dir/log" 2>&1; then
        echo "$what: $*"
        cat "$dir/log"
        exit 1
    fi
}

fail() {
    printf '%s\n' "$@"
    failed=1
}

# installed, then moved: nothing may remember the first place
must install cmake --install "$TIERED_BUILD" --prefix "$dir/first"
mv "$dir/first" "$dir/tiered"
tiered=$dir/tiered/bin/tiered
for file in bin/tiered-agent include/tiered/plugin.h; do
    [ -f "$dir/tiered/$file" ] || fail "not installed: $file"
done
must list "$tiered" plugins list --json
python3 - "$dir" <<'PYTHON' || fail "plugins list: $(cat "$dir/log")"
import json, os, sys
folder = sys.argv[1]
plugins = json.load(open(folder + "/log"))
lib = {os.path.dirname(os.path.realpath(p["file"])) for p in plugins}
assert len(lib) == 1 and lib.pop().startswith(os.path.realpath(folder + "/tiered")), lib
assert {"fedavg", "zstd", "unix", "mlp"} <= {p["name"] for p in plugins}
PYTHON

# by CMake; its tests are the kit
must configure cmake -S "$source/examples/plugin" -B "$dir/example" \
    -DCMAKE_PREFIX_PATH="$dir/tiered" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_C_FLAGS="-Wall -Wextra -Werror"
must build cmake --build "$dir/example"
must "the example's tests" ctest --test-dir "$dir/example" --output-on-failure
grep -q "100% tests passed, 0 tests failed out of 2" "$dir/log" || fail "$(cat "$dir/log")"

# by pkg-config, in one line
pc=$(find "$dir/tiered" -name tiered-sdk.pc)
export PKG_CONFIG_PATH=${pc%/*}
mkdir "$dir/plain"
for name in huber-mean sign; do
    must "gcc" "${CC:-cc}" -O2 -Wall -Wextra -Werror -shared $(pkg-config --cflags tiered-sdk) \
        -o "$dir/plain/$name.so" "$source/examples/plugin/$name.c" -lm
    must "check" "$tiered" plugins check "$dir/plain/$name.so"
done
plugindir=$(pkg-config --variable=plugindir tiered-sdk)
[ -f "$plugindir/fedavg.so" ] || fail "plugindir is $plugindir"

# 0, 1, 10: median 1, pulls -1, 0, 1: 1. 0, 0.5, 10: median 0.5, pulls -0.5, 0, 1: 2/3.
cd "$dir" || exit 1
for row in "a 0,0" "b 1,0.5" "c 10,10"; do
    set -- $row
    must "$1" $st write "$1" "{\"w\": [\"F32\", [2], [$2]]}"
done
must aggregate "$tiered" aggregate --plugins "$dir/example" --plugin huber-mean:delta=1 -o out a b c
must values $st near out w 1e-6 1 0.6666667
"$tiered" aggregate --plugins "$dir/example" --plugin huber-mean:delta=0 -o bad a b > log 2>&1
[ $? -eq 1 ] && grep -q "option 'delta' must be a number above 0" log || fail "delta=0: $(cat log)"

# installed beside the shipped ones, and in a pipe with one of them
must "install of the example" cmake --install "$dir/example" --prefix "$dir/tiered"
must d $st write d '{"w": ["F32", [4], [1, -3, 2, -2]]}'
must filter "$tiered" filter --pipe 'sign | zstd' d -o back
must values $st near back w 1e-6 2 -2 2 -2

exit $failed
