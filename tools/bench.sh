#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every benchmark; each prints a table and writes JSON into build/bench. Fails at the end if one of them failed.
cd "$(dirname "$0")/.." || exit 2
failed=""
for file in benchmarks/bench_*.py; do
    [ -e "$file" ] || { echo "usreg: no benchmarks found." >&2; exit 2; }
    echo "== $(basename "$file" .py)"
    python "$file" || failed="$failed $(basename "$file")"
done
[ -z "$failed" ] || { echo "usreg: failed:$failed" >&2; exit 1; }
