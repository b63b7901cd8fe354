#!/usr/bin/env bash
# See aggregate.py.
exec python3 "$(dirname "$0")/aggregate.py" "$@"
