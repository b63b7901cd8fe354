#!/usr/bin/env bash
# See dictionary.py.
exec python3 "$(dirname "$0")/dictionary.py" "$@"
