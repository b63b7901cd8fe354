#!/usr/bin/env bash
# See growth.py.
exec python3 "$(dirname "$0")/growth.py" "$@"
