#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the sessions that ship again, and their checksums: `tools/make_bags.sh` (after `make build`, about five minutes).
set -e
cd "$(dirname "$0")/.."
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
.venv/bin/usreg simulate phantom --seed 0 --seconds 30 --out "$new/phantom"
.venv/bin/usreg simulate volunteer --seed 0 --seconds 12 --out "$new/volunteer"
rm -rf bags/phantom bags/volunteer
cp -R "$new/phantom" "$new/volunteer" bags/
cd bags && find phantom volunteer -type f | LC_ALL=C sort | xargs sha256sum > SHA256SUMS
