#!/usr/bin/env bash
# See secure_sum.py.
exec python3 "$(dirname "$0")/secure_sum.py" "$@"
