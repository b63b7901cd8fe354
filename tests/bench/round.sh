#!/usr/bin/env bash
# See round.py.
exec python3 "$(dirname "$0")/round.py" "$@"
