#!/bin/bash
# Installs the Debian packages of commands, or of modules of Debian's own Python, that are missing.
#
#   need.sh COMMAND:PACKAGE MODULE.py:PACKAGE ...
set -euo pipefail

# Ordinary users on Debian have no sbin directories in their path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

is_there() {
  case $1 in
    *.py) /usr/bin/python3 -c "import ${1%.py}" 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for pair in "$@"; do
  is_there "${pair%%:*}" || missing+=("${pair#*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "need.sh: please install as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo -n)
fi

echo "Installing with apt-get: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=(apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install)
# The package lists of a fresh machine are empty or old: they are fetched only when they must be.
"${as_root[@]}" "${install[@]}" "${missing[@]}" </dev/null >/dev/null 2>&1 || {
  "${as_root[@]}" apt-get -qq update </dev/null
  "${as_root[@]}" "${install[@]}" "${missing[@]}" </dev/null >/dev/null
}
