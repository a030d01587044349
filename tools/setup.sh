#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes .venv and builds src/ (and underlay/tf2_msgs where none is found) into it. Called by make; see `make help`.
#
# .venv/usreg-setup/ holds what has been finished: identity (which python and mode), installed, interfaces, package. Each is
# removed before its step and written after it, so that an interrupted run is taken up where it is safe, and a finished one
# costs a few checksums. A .venv whose installation was interrupted is made again from nothing.
set -euo pipefail
top="$(cd "$(dirname "$0")/.." && pwd)"
cd "$top"
venv="$top/.venv"
state="$venv/usreg-setup"
export PATH="${PATH//"$venv/bin:"/}"
export PYTHON="${PYTHON:-python3}"
# The torch build that was asked for is remembered: a later plain `make test` keeps it.
torch_choice="${TORCH:-$(cat "$state/torch" 2>/dev/null || true)}"
TORCH="${torch_choice:-torch==2.13.0}"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=no PIP_REQUIRE_VIRTUALENV=no

say() { echo "usreg: $*"; }
die() { echo "usreg: $*" >&2; exit 2; }
digest() { sha256sum | cut -d' ' -f1; }
# digest_of PATH...: checksum over names and contents of all files below the paths.
digest_of() { find "$@" -type f -not -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | digest; }
# done_with STEP VALUE: was this step finished for this value?
done_with() { [ "$(cat "$state/$1" 2>/dev/null)" = "$2" ]; }
finish() { echo "$2" > "$state/$1.new" && mv "$state/$1.new" "$state/$1"; }

choose_mode() {
    export USREG_MODE=wheels
    [ -n "${ROS_DISTRO:-}" ] || return 0
    if "$PYTHON" -c 'import rclpy' 2>/dev/null; then
        export USREG_MODE=distribution
    else
        say "ROS $ROS_DISTRO is sourced but $PYTHON cannot import rclpy: using ROS wheels instead."
    fi
}

# The pinned lists of this mode. A distribution brings ROS and keeps the major version of its numpy.
lists() {
    if [ "$USREG_MODE" = wheels ]; then
        echo "requirements/lock-numpy2.txt requirements/lock-ros.txt"
    elif "$PYTHON" -c 'import numpy, sys; sys.exit(not numpy.__version__.startswith("1."))' 2>/dev/null; then
        echo "requirements/lock-numpy1.txt"
    else
        echo "requirements/lock-numpy2.txt"
    fi
}

identity() { "$PYTHON" -c 'import sys; print(sys.base_prefix, sys.version.split()[0])'; echo "$USREG_MODE ${ROS_DISTRO:-} $top"; }

fresh_venv() {
    if [ -e "$venv" ] && [ ! -d "$state" ]; then
        die ".venv was not made by this Makefile; move it away, then run make again."
    fi
    rm -rf "$venv" "$top/build/colcon"
    mkdir -p "$state"
    local options=()
    [ "$USREG_MODE" = wheels ] || options=(--system-site-packages)
    "$PYTHON" -m venv ${options[@]+"${options[@]}"} "$venv" || die "$PYTHON -m venv failed; install its venv module (Debian, Ubuntu: apt install python3-venv)."
    finish identity "$1"
}

install_packages() {
    local who wanted requirements=() list
    who="$(identity | tr '\n' ' ')"
    for list in $(lists); do requirements+=(-r "$list"); done
    wanted="$(cat $(lists) <(echo "$TORCH") | digest)"
    if done_with identity "$who" && done_with installed "$wanted"; then return; fi
    if ! done_with identity "$who" || [ ! -e "$state/installed" ]; then fresh_venv "$who"; fi
    rm -f "$state/installed"
    say "installing pinned packages and $TORCH into .venv (once, some minutes) ..."
    "$venv/bin/python" -m pip install -qq "${requirements[@]}" $TORCH \
        || die "pip could not install the packages (see above); check the network, then run make again."
    if [ -n "$torch_choice" ]; then finish torch "$torch_choice"; fi
    finish installed "$wanted"
}

in_wheels_environment() {
    unset PYTHONPATH COLCON_PREFIX_PATH LD_LIBRARY_PATH
    export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv" VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH"
}

# colcon of the environment's python: scripts then start with that python and find what is installed there.
colcon_build() {
    local cmake_args=("-DPython3_EXECUTABLE=$venv/bin/python" -DBUILD_TESTING=OFF)
    [ "$USREG_MODE" = distribution ] || cmake_args+=("-DCMAKE_PROJECT_INCLUDE=$top/cmake/fix_ros_wheels.cmake")
    "$venv/bin/python" -c 'import sys; from colcon_core.command import main; sys.exit(main())' \
        --log-base build/log --log-level error build --build-base build/colcon --install-base "$venv" --merge-install \
        "$@" --cmake-args "${cmake_args[@]}" || die "the build failed; the log is in build/log/latest_build."
}

tf2_msgs_is_found() {
    local prefix
    while read -r -d: prefix; do
        if [ "$prefix" != "$venv" ] && [ -f "$prefix/share/tf2_msgs/package.xml" ]; then return 0; fi
    done <<< "${AMENT_PREFIX_PATH:-}:"
    return 1
}

build_interfaces() {
    local underlay=() wanted
    tf2_msgs_is_found || underlay=(--paths underlay/tf2_msgs)
    wanted="$( (digest_of src/usreg_msgs underlay cmake; cat "$state/installed"; echo "${underlay[*]-}") | digest)"
    if done_with interfaces "$wanted"; then return; fi
    rm -f "$state/interfaces"
    say "building the interfaces ..."
    colcon_build --base-paths src/usreg_msgs ${underlay[@]+"${underlay[@]}"}
    finish interfaces "$wanted"
}

# The python package is installed as links: an edited file is live, only new data files and entry points need a build.
build_package() {
    local wanted
    wanted="$( (digest_of src/usreg/setup.py src/usreg/setup.cfg src/usreg/package.xml src/usreg/resource
        find launch config bags benchmarks -type f -not -path '*/__pycache__/*' 2>/dev/null | LC_ALL=C sort; cat "$state/interfaces") | digest)"
    if done_with package "$wanted" && [ -d build/colcon/usreg ]; then return; fi
    rm -f "$state/package"
    say "building the package ..."
    colcon_build --base-paths src/usreg --symlink-install
    find "$venv/share/usreg" -xtype l -delete  # links to files that are gone
    link_modules
    link_command
    finish package "$wanted"
}

# colcon makes linked modules known by a sourced PYTHONPATH; a .pth file does it without sourcing (second line: metadata).
link_modules() {
    local site
    site="$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    printf '%s\n' "$top/src/usreg" "$top/build/colcon/usreg" > "$site/usreg-workspace.pth"
}

# .venv/bin/usreg works without sourcing anything: wheels find their libraries themselves, a distribution has to be sourced.
link_command() {
    rm -f "$venv/bin/usreg"
    if [ "$USREG_MODE" = wheels ]; then
        ln -s ../lib/usreg/usreg "$venv/bin/usreg"
    else
        printf '#!/bin/sh\n. "%s/setup.sh"\nexec "%s/lib/usreg/usreg" "$@"\n' "$venv" "$venv" > "$venv/bin/usreg"
        chmod +x "$venv/bin/usreg"
    fi
}

choose_mode
tools/check_machine.sh
mkdir -p build
if command -v flock >/dev/null 2>&1; then exec 9> build/setup.lock; flock 9; fi
install_packages
if [ "$USREG_MODE" = wheels ]; then in_wheels_environment; fi
build_interfaces
build_package
