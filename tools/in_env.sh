#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs a command with the environment that `make build` made: tools/in_env.sh python -m pytest
venv="$(cd "$(dirname "$0")/.." && pwd)/.venv"
[ -x "$venv/bin/python" ] || { echo "usreg: nothing is built yet; run make build." >&2; exit 2; }
# Wheels find their libraries themselves; a distribution has to be sourced.
if grep -q distribution "$venv/usreg-setup/identity" 2>/dev/null; then . "$venv/setup.sh"; fi
PATH="$venv/bin:$PATH"
export PATH
exec "$@"
