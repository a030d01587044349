#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetches the pinned JavaScript of the web view again (npm; only a maintainer needs this): `tools/vendor.sh`.
# To move to another version: edit VERSIONS (name, version, sha512 of the npm package), run this, look at the page, commit.
# One line is changed: OrbitControls imports three by its path, since the page allows no inline import map.
# The licence texts in niivue/ are not in its package: they are kept by hand, from its repository and its bundle's parts.
set -euo pipefail
cd "$(dirname "$0")/../src/usreg/usreg/web/static/vendor"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

take() { # take PACKAGE FILE TARGET
    install -D -m 644 "$work/$1/package/$2" "$3"
}

while read -r name version integrity; do
    file=$(npm pack --silent --ignore-scripts --pack-destination "$work" "$name@$version")
    found="sha512-$(openssl dgst -sha512 -binary "$work/$file" | base64 -w0)"
    [ "$found" = "$integrity" ] || { echo "usreg: $name $version is $found, expected $integrity" >&2; exit 1; }
    mkdir -p "$work/${name##*/}"
    tar xzf "$work/$file" -C "$work/${name##*/}"
done < VERSIONS

take three build/three.module.js three/three.module.js
take three build/three.core.js three/three.core.js
take three examples/jsm/controls/OrbitControls.js three/OrbitControls.js
take three LICENSE three/LICENSE
take uplot dist/uPlot.esm.js uplot/uPlot.esm.js
take uplot dist/uPlot.min.css uplot/uPlot.min.css
take uplot LICENSE uplot/LICENSE
take niivue dist/index.js niivue/index.js
sed -i "s|^} from 'three';|} from './three.module.js';|" three/OrbitControls.js
grep -q "^} from './three.module.js';" three/OrbitControls.js

find . -type f ! -name SHA256SUMS | sed 's|^\./||' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS
du -sh .
