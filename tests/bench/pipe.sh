#!/usr/bin/env bash
# GB/s of filters and common pipes, then what they do to a run: see pipe_bench.c, pipe.py.
# usage: pipe.sh [--only speed|rounds] [--rounds R]
set -euo pipefail
cd "$(dirname "$0")/../.."
only=
[ "${1:-}" = --only ] && only=${2:?speed or rounds} && shift 2
[ "$only" = rounds ] || TIERED_PLUGINS=build/lib/tiered build/tests/bench/pipe_bench
[ "$only" = speed ] || exec python3 tests/bench/pipe.py "$@"
