#!/usr/bin/env bash
# The dashboard in a real browser: a run of a small tree, followed to its end, and a large
# tree from a server of the test's own. Screenshots: build/dashboard/*.png
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$PWD/build/dashboard
mkdir -p "$folder"

install_packages() {
    local need=() sudo=()
    command -v chromium >/dev/null || need+=(chromium)
    command -v npm >/dev/null || need+=(nodejs npm)
    if [ "${#need[@]}" -gt 0 ]; then
        [ "$(id -u)" -eq 0 ] || sudo=(sudo)
        "${sudo[@]}" apt-get update -qq
        DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq \
            --no-install-recommends "${need[@]}" >/dev/null
    fi
    if [ ! -d "$folder/node_modules/playwright-core" ]; then
        npm install --prefix "$folder" --no-audit --no-fund --silent playwright-core@1
    fi
}

install_packages
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/plugins"
ln -s "$PWD"/build/lib/tiered/*.so "$PWD/build/tests/plugins/test-trainer.so" "$scratch/plugins/"
rm -f "$folder"/*.png
cp tests/suites/dashboard.mjs "$folder/" # node looks for modules beside the script
timeout 180 node "$folder/dashboard.mjs" "$PWD" "$scratch"
