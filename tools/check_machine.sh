#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Says in one line per problem what this machine lacks for `make build`, and what to do; exit code 2 then, else 0.
# Environment: PYTHON (default python3); USREG_MODE=distribution skips what concerns only the ROS wheels.
PYTHON="${PYTHON:-python3}"
problems=0

problem() {
    echo "usreg: $1" >&2
    problems=1
}

# at_least 3.25.1 3 21: true when the version (major.minor...) is that or newer.
at_least() {
    major="${1%%.*}"; rest="${1#*.}"; minor="${rest%%.*}"
    [ "$major" -gt "$2" ] || { [ "$major" -eq "$2" ] && [ "$minor" -ge "$3" ]; }
}

check_machine() {
    [ "$(uname -s)" = Linux ] || { problem "this system is $(uname -s); use Linux (or the container in docker/)."; return; }
    [ "$(uname -m)" = x86_64 ] || problem "the ROS wheels exist for x86_64 only and this processor is $(uname -m); install a ROS 2 distribution, source it, and run make again."
    glibc="$(getconf GNU_LIBC_VERSION 2>/dev/null)"
    case "$glibc" in
        "glibc "*) at_least "${glibc#glibc }" 2 28 || problem "$glibc is too old for the ROS wheels; use a system with glibc 2.28 or newer (Debian 10, Ubuntu 18.10, RHEL 8), or docker/." ;;
        *) problem "the C library is not glibc (musl?); use a system with glibc 2.28 or newer (Debian, Ubuntu, Fedora), or docker/." ;;
    esac
}

check_python() {
    command -v "$PYTHON" >/dev/null 2>&1 || { problem "no $PYTHON found; install Python 3.10-3.13 (Debian, Ubuntu: apt install python3) or name one: make PYTHON=python3.12."; return; }
    version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"
    case "$version" in
        3.10|3.11|3.12|3.13) ;;
        *) problem "$PYTHON is version ${version:-unknown}; usreg needs 3.10-3.13: name one with make PYTHON=python3.12."; return ;;
    esac
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || problem "$PYTHON has no venv module; install it (Debian, Ubuntu: apt install python$version-venv)."
    "$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null \
        || problem "$PYTHON has no header Python.h, needed to build the messages; install it (Debian, Ubuntu: apt install python$version-dev)."
}

check_tools() {
    if ! command -v cmake >/dev/null 2>&1; then
        problem "no cmake found; install 3.21 or newer (Debian, Ubuntu: apt install cmake)."
    else
        cmake_version="$(cmake --version | sed -n '1s/^cmake version //p')"
        at_least "${cmake_version:-0.0}" 3 21 || problem "cmake ${cmake_version:-unknown} is too old; install 3.21 or newer."
    fi
    compiler "${CXX:-}" c++ g++ clang++ || problem "no C++ compiler found; install one (Debian, Ubuntu: apt install g++)."
    compiler "${CC:-}" cc gcc clang || problem "no C compiler found; install one (Debian, Ubuntu: apt install gcc)."
}

# True when one of the given commands exists.
compiler() {
    for name in "$@"; do
        if [ -n "$name" ] && command -v "${name%% *}" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

check_distribution() {
    "$PYTHON" -c 'import colcon_core, colcon_cmake, colcon_ros' 2>/dev/null \
        || problem "ROS $ROS_DISTRO is sourced but colcon is missing; install it (apt install python3-colcon-common-extensions)."
}

if [ "${USREG_MODE:-wheels}" = distribution ]; then check_distribution; else check_machine; fi
check_python
check_tools
case "$PWD" in *[[:space:]]*) problem "the path of this folder contains white space, which the build tools cannot handle; move it." ;; esac
[ "$problems" -eq 0 ] || exit 2
