# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts beside it. `prepare EXTRA` makes .venv, with ms_deform and the named extra in
# it and the kernel libraries up to date; what is done already is not done again.
# Environment: PYTHON, the Python to use; EXTRAS, more extras; pip's own variables.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { echo "$(basename "$0"): $*"; }
fail() { say "$@" >&2; exit 1; }

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1
}

# Prints the first supported Python that can make a virtual environment.
find_python() {
  local name without_venv='' candidates=(python3 python3.12 python3.11 python3.10 python3.9)
  if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
  for name in "${candidates[@]}"; do
    supported "$name" || continue
    if "$name" -c 'import ensurepip' >/dev/null 2>&1; then echo "$name"; return; fi
    without_venv=$name
  done
  if [[ -n $without_venv ]]; then
    fail "$without_venv has no venv module; install it (Debian: apt-get install python3-venv)"
  fi
  fail "needs Python 3.9 to 3.12, found ${candidates[0]}: $("${candidates[0]}" -V 2>/dev/null ||
    echo none); install one (Debian: apt-get install python3 python3-venv) or name it in PYTHON"
}

# Prints the requirements of an extra of setup.cfg, a line each.
requirements_of() {
  "$(find_python)" - "$root/setup.cfg" "$1" <<'EOF'
import configparser
import sys

setup = configparser.ConfigParser()
setup.read(sys.argv[1])
print(setup["options.extras_require"][sys.argv[2]].strip())
EOF
}

# Whether .venv works and is of the Python asked for, if any.
venv_fits() {
  supported "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null || return 1
  [[ -z ${PYTHON:-} || $("$PYTHON" -V 2>&1) == $("$venv/bin/python" -V) ]]
}

make_venv() {
  local python
  python=$(find_python)
  say "making .venv with $("$python" -V)"
  "$python" -m venv --clear "$venv"
}

# Installs the package with the given extras, those in EXTRAS and those of earlier runs. The stamp
# holds a hash of all that decides what pip does, and the extras installed.
install() {
  local stamp=$venv/ms_deform.stamp state installed='' wanted
  state=$({ echo "$root"; cat "$root"/{setup.cfg,pyproject.toml} ${PIP_CONSTRAINT:-}; } | sha256sum)
  if [[ -f $stamp && $(head -n 1 "$stamp") == "$state" ]]; then installed=$(tail -n 1 "$stamp"); fi
  wanted=$(tr -s ', ' '\n' <<<"$installed $* ${EXTRAS:-}" | sed '/^$/d' | sort -u | paste -sd ,)
  if [[ $wanted == "$installed" ]]; then return; fi
  say "installing MindSpore and ms_deform[$wanted] into .venv: some minutes the first time"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check -e "$root[$wanted]"
  printf '%s\n%s\n' "$state" "$wanted" >"$stamp"
}

prepare() {
  local compiler
  read -r compiler _ <<<"${CXX:-g++}"
  command -v "$compiler" >/dev/null ||
    fail "no C++ compiler: $compiler is not on the PATH; install it (Debian: apt-get install g++)"
  venv_fits || make_venv
  install "$1"
  cd "$root"
  "$venv/bin/python" -m ms_deform build >/dev/null
}
