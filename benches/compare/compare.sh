#!/bin/bash
# Backs up and restores raw images with Keepstone and with other tools that are installed, and prints a table.
#
#   compare.sh IMAGE ...
#
#   KEEPSTONE=FILE  the program (default: target/release/keepstone)
#   KOPIA=FILE      the same of kopia (default: the one in PATH, if there is one)
#   SCRATCH=DIR     where everything is for the time of the run (default: beside the first image): about five times
#                   what is in use of an image
#   TOOLS="A;B"     which runs, of those that `run` below knows (default: all whose program is installed)
#
# Each tool backs the same file up to a fresh repository on the same disk with a fresh cache: first; again, untouched;
# again, untouched but read in full if the tool can be told to; with 1 % of its blocks of 64 KiB changed; and restores
# that. All of them encrypt. Restored files are compared. Tools for files get the directory with the image and a small
# file that is newer: Borg does not believe the times of the newest file.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
keepstone=$(realpath "${KEEPSTONE:-$root/target/release/keepstone}")
kopia=${KOPIA:-kopia}
[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ -x "$keepstone" ] || { echo "compare.sh: $keepstone is missing; \`make build\` builds it" >&2; exit 1; }

images=()
for image in "$@"; do images+=("$(realpath "$image")"); done
scratch=$(mktemp -d -p "$(realpath "${SCRATCH:-$(dirname "$1")}")" keepstone-compare-XXXXXX)
trap 'rm -rf "$scratch"' EXIT
export HOME=$scratch/home XDG_CACHE_HOME=$scratch/home/cache XDG_CONFIG_HOME=$scratch/home/config
export KEEPSTONE_PASSWORD=compare RESTIC_PASSWORD=compare BORG_PASSPHRASE=compare KOPIA_PASSWORD=compare
export BORG_BASE_DIR=$scratch/home/borg KOPIA_CHECK_FOR_UPDATES=false
repository=$scratch/repository
source=$scratch/source
disk=$source/disk.raw
table=$scratch/table

is_installed() { command -v "$1" >/dev/null; }

size_mib() { du -sm --apparent-size "$repository" | cut -f1; }

# measure PHASE COMMAND ...: runs it for the tool $tool.
measure() {
  sync
  "$here/measure.py" "$table.lines" "$tool" "$@" >>"$scratch/log" 2>&1 || {
    echo "compare.sh: $tool failed at: $1" >&2
    tail -n 20 "$scratch/log" >&2
    exit 1
  }
  paste <(tail -n 1 "$table.lines") <(size_mib) | tee -a "$table" >&2
}

# put FILE: lets it be the disk, at the same path with times of its own, as if it had been written to.
put() {
  rm -rf "$source"
  mkdir "$source"
  ln "$scratch/$1" "$disk"
  touch "$disk"
  sleep 0.1
  echo "the machine's settings" >"$source/settings"
}

begin() {
  tool=$1
  rm -rf "$repository" "$HOME"
  mkdir -p "$repository" "$HOME"
  put old
}

# check FILE: ends the run if what was restored there is another disk.
check() {
  cmp "$1" "$disk" || { echo "compare.sh: $tool restored something else" >&2; exit 1; }
  rm -rf "$scratch/restored"
}

keepstone_run() { # LEVEL, and whether changes are known
  local options=(--vm vm --compression "$1") first=() none=() some=()
  if [ "$2" = known ]; then
    first=(--changes "$scratch/first.json") none=(--changes "$scratch/none.json") some=(--changes "$scratch/some.json")
  fi
  rmdir "$repository"
  "$keepstone" -r "$repository" init >>"$scratch/log" 2>&1
  local back_up=("$keepstone" -r "$repository" backup "${options[@]}")
  measure first "${back_up[@]}" "${first[@]}" "$disk"
  measure untouched "${back_up[@]}" "${none[@]}" "$disk"
  put new
  measure '1 % changed' "${back_up[@]}" "${some[@]}" "$disk"
  measure restore "$keepstone" -r "$repository" restore vm@latest --to "$scratch/restored"
  check "$scratch/restored"
}

restic_run() {
  local restic=(restic --quiet --repo "$repository")
  "${restic[@]}" init --repository-version 2 >>"$scratch/log" 2>&1
  measure first "${restic[@]}" --compression "$1" backup "$source"
  measure untouched "${restic[@]}" --compression "$1" backup "$source"
  measure 'untouched, read' "${restic[@]}" --compression "$1" backup --force "$source"
  put new
  measure '1 % changed' "${restic[@]}" --compression "$1" backup "$source"
  measure restore "${restic[@]}" restore latest --target "$scratch/restored"
  check "$scratch/restored$disk"
}

borg_run() { # compression, chunker
  local options=(--compression "$1")
  [ "$2" = default ] || options+=(--chunker-params "$2")
  borg init --encryption repokey-blake2 "$repository" >>"$scratch/log" 2>&1
  measure first borg create "${options[@]}" "$repository::1" "$source"
  measure untouched borg create "${options[@]}" "$repository::2" "$source"
  measure 'untouched, read' borg create "${options[@]}" --files-cache disabled "$repository::3" "$source"
  put new
  measure '1 % changed' borg create "${options[@]}" "$repository::4" "$source"
  mkdir "$scratch/restored"
  cd "$scratch/restored"
  measure restore borg extract --sparse "$repository::4"
  cd "$root"
  check "$scratch/restored$disk"
}

kopia_run() {
  "$kopia" repository create filesystem --path "$repository" >>"$scratch/log" 2>&1
  "$kopia" policy set --global --compression "$1" >>"$scratch/log" 2>&1
  measure first "$kopia" snapshot create --no-progress "$source"
  measure untouched "$kopia" snapshot create --no-progress "$source"
  measure 'untouched, read' "$kopia" snapshot create --no-progress --force-hash 100 "$source"
  put new
  measure '1 % changed' "$kopia" snapshot create --no-progress "$source"
  measure restore "$kopia" restore --no-progress "$source" "$scratch/restored"
  check "$scratch/restored/disk.raw"
}

run() {
  begin "$1"
  case $1 in
    'keepstone, zstd 1') keepstone_run 1 unknown ;;
    'keepstone, zstd 1, changes known') keepstone_run 1 known ;;
    'restic, auto') restic_run auto ;;
    'borg, zstd 1') borg_run zstd,1 default ;;
    'borg, lz4') borg_run lz4 default ;;
    'borg, zstd 1, fixed 4 MiB') borg_run zstd,1 fixed,4194304 ;;
    'kopia, zstd-fastest') kopia_run zstd-fastest ;;
    'kopia, no compression') kopia_run none ;;
    *) echo "compare.sh: no such run: $1" >&2; exit 2 ;;
  esac
}

runs=('keepstone, zstd 1' 'keepstone, zstd 1, changes known')
if is_installed restic; then runs+=('restic, auto'); fi
if is_installed borg; then runs+=('borg, zstd 1' 'borg, lz4' 'borg, zstd 1, fixed 4 MiB'); fi
if is_installed "$kopia"; then runs+=('kopia, zstd-fastest' 'kopia, no compression'); fi
[ -z "${TOOLS:-}" ] || IFS=';' read -ra runs <<<"$TOOLS"

for image in "${images[@]}"; do
  cp --sparse=always "$image" "$scratch/old"
  used=$("$here/change.py" "$scratch/old" "$scratch/new" 10 "$scratch")
  cat "$scratch/old" "$scratch/new" >/dev/null
  printf 'tool\tphase\twall s\tCPU s\tpeak MiB\tread MiB\trepository MiB\n' >"$table"
  load=$(cut -d ' ' -f 1 /proc/loadavg)
  for name in "${runs[@]}"; do run "$name"; done
  echo "$(basename "$image"): $used; $(nproc) processors, load $load to $(cut -d ' ' -f 1 /proc/loadavg)"
  column -t -s $'\t' "$table"
done
"$keepstone" --version
if is_installed restic; then restic version; fi
if is_installed borg; then borg --version; fi
if is_installed "$kopia"; then echo "kopia $("$kopia" --version)"; fi
