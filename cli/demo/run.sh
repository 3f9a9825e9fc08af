#!/bin/bash
# The demo: a machine's disk is backed up on three days, a second machine beside it, and every day is restored and
# compared byte for byte; then two days and the second machine are forgotten and pruned, and the last day is restored and
# compared again. What is left is copied to another place, and restored from there alone. Any difference is a failure.
# `make demo` builds the binaries and runs it.
#
#   BIN=DIR        directory of the programs keepstone and examples/changed_areas (default: target/release)
#   DEMO_MIB=N     size of the files on each disk in MiB (default: 560, for disks of 1 GiB)
#   KEEP=1         keep target/demo with the disks and the repository
set -euo pipefail

cd "$(dirname "$0")/../.."
mib=${DEMO_MIB:-560}
bin=$(realpath "${BIN:-target/release}")
demo=$PWD/cli/demo
work=$PWD/target/demo
export LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

fail() {
  echo "The demo failed: $*" >&2
  exit 1
}

finish() {
  local status=$?
  if [ "$status" -ne 0 ]; then
    echo "The disks and the repository are left in $work" >&2
  elif [ "${KEEP:-0}" != 1 ]; then
    rm -rf "$work"
  fi
}

for program in "$bin/keepstone" "$bin/examples/changed_areas"; do
  [ -x "$program" ] || fail "$program is missing; \`make demo\` builds it"
done
"$demo/need.sh" sfdisk:fdisk mke2fs:e2fsprogs debugfs:e2fsprogs cmp:diffutils find:findutils awk:mawk
rm -rf "$work"
mkdir -p "$work/reports"
trap finish EXIT
free_mib=$(df -m --output=avail "$work" | tail -n 1)
[ "$free_mib" -gt $((mib * 10)) ] || fail "$work has room for $free_mib MiB, and $((mib * 10)) are needed"

# ---------------------------------------------------------------- the keepstone commands

# Runs keepstone and shows the command as a user would type it.
keepstone() {
  printf '\n$ keepstone -r %s %s\n' "$repository" "$*"
  run_keepstone "$@"
}

# The repository that commands go to.
repository=repo

# Runs keepstone with its report going to reports/NAME.json.
reported() {
  local report=reports/$1.json
  shift
  printf '\n$ keepstone -r %s --json %s > %s\n' "$repository" "$*" "$report"
  run_keepstone --json "$@" >"$report"
}

run_keepstone() {
  local status=0
  "$bin/keepstone" -r "$repository" --password-file password --retention-password-file retention "$@" || status=$?
  [ "$status" -eq 0 ] || fail "keepstone ended with exit code $status"
}

# Prints the number KEY of the report NAME: a sum if there is one for each of several disks.
number() {
  grep -oE "[{,[:space:]]\"$2\"[[:space:]]*:[[:space:]]*[0-9]+" "reports/$1.json" |
    awk -F: '{ sum += $2; found = 1 } END { if (!found) exit 1; printf "%d\n", sum }' ||
    fail "the report $1.json has no number $2"
}

# Prints the first text KEY of the report NAME.
text() {
  local pair
  pair=$(grep -oE "[{,[:space:]]\"$2\"[[:space:]]*:[[:space:]]*\"[^\"]*\"" "reports/$1.json" | head -n 1) ||
    fail "the report $1.json has no text $2"
  pair=${pair%\"}
  echo "${pair##*\"}"
}

snapshot() { text "$1" snapshot | cut -c 1-12; }

# Backs up one disk and makes sure that it was read the way the demo is about.
backup() {
  local name=$1 mode=$2
  shift 2
  reported "$name" backup "$@"
  [ "$(text "$name" mode)" = "$mode" ] || fail "$name was to be read in mode $mode, and was not"
}

# Restores the disk of a backup and compares it with the image that was backed up; the report is that of the name, or another.
restore() {
  local name=$1 image=$2
  reported "restore-${3:-$name}" restore "$(snapshot "$name")" --to restored.img
  echo "\$ cmp $image restored.img"
  cmp "$image" restored.img || fail "the restored disk differs from $image"
  echo "Every byte is the same."
  rm -f restored.img
}

# ---------------------------------------------------------------- the table

# Prints one line of the table: a name, then sizes in bytes, then milliseconds; the rates are those of the first two sizes.
row() {
  local name=$1
  shift
  echo "$@" | awk -v name="$name" '{
    printf "%-22s", name
    for (i = 1; i < NF; i++) printf " %10.1f", $i / 1048576
    seconds = ($NF > 0 ? $NF : 1) / 1000
    printf " %8.2f %8.0f %8.0f\n", seconds, $1 / 1048576 / seconds, $2 / 1048576 / seconds
  }'
}

# Prints the numbers KEYS of the report NAME on one line.
numbers() {
  local report=$1 key all=()
  shift
  for key in "$@"; do
    all+=("$(number "$report" "$key")") || exit 1
  done
  echo "${all[@]}"
}

backup_row() {
  local figures
  figures=$(numbers "$1" diskBytes readBytes changedBytes storedBytes metadataBytes elapsedMs)
  # shellcheck disable=SC2086 # one argument for each figure
  row "$2" $figures
}

restore_row() {
  local figures
  figures=$(numbers "restore-$1" diskBytes writtenBytes fetchedBytes elapsedMs)
  # shellcheck disable=SC2086 # one argument for each figure
  row "$2" $figures
}

# ---------------------------------------------------------------- the story

echo "Making the disks of two machines in target/demo"
"$demo/images.sh" "$work" "$mib" "$bin/examples/changed_areas"
cd "$work"
# Nothing outside target/demo is touched.
export XDG_CACHE_HOME=$work/cache

echo
echo "Every command below is also given \`--password-file password --retention-password-file retention\`."
echo "correct horse battery staple" >password
echo "only who deletes knows this" >retention

keepstone init
backup day0 full --vm web web-day0.img --changes web-day0.json
backup day1 incremental --vm web web-day1.img --changes web-day1.json
backup day2 incremental --vm web web-day2.img --changes web-day2.json
backup mail full --vm mail mail.img
keepstone snapshots
keepstone diff "$(snapshot day0)" "$(snapshot day1)" >diff.txt
head -n 12 diff.txt
keepstone stats
restore day0 web-day0.img
restore day1 web-day1.img
restore day2 web-day2.img
restore mail mail.img

# The machine has gone on to day 2, and its disk is rolled back to day 1.
cp --sparse=always web-day2.img live.img
reported rollback restore "$(snapshot day1)" --to live.img --in-place
cmp web-day1.img live.img || fail "the disk that was rolled back differs from web-day1.img"
echo "Every byte is as on day 1; $(number rollback writtenBytes) bytes were written."
rm -f live.img

keepstone ls "$(snapshot day2)"

started=${EPOCHREALTIME/./}
keepstone verify --read-data
verify_millis=$(((${EPOCHREALTIME/./} - started) / 1000))
repository_bytes=$(du -sb repo | cut -f 1)

# Two of the three days go, and the second machine. What the third day needs of packs that are mostly of others is packed
# again.
keepstone forget --vm web --keep-last 1 --dry-run
keepstone forget --vm web --keep-last 1
keepstone forget mail@latest --force
keepstone prune --max-unused 1% --dry-run
reported prune prune --max-unused 1% --confirm-large
[ "$(number prune unusedBytesLeft)" -lt $((repository_bytes / 50)) ] || fail "the prune left more than it was allowed to"
keepstone snapshots
restore day2 web-day2.img after
keepstone verify --read-data

# The other place has the same keys, and needs nothing else to restore from.
keepstone replicate --to copy
repository=copy
keepstone replica status
restore day2 web-day2.img copy
keepstone verify --read-data

echo
echo "Sizes in MiB, rates in MiB/s of the disk and of what was read or written"
printf '\n%-22s %10s %10s %10s %10s %10s %8s %8s %8s\n' \
  backup disk read changed stored metadata seconds disk/s read/s
backup_row day0 "web, first backup"
backup_row day1 "web, day 1"
backup_row day2 "web, day 2"
backup_row mail "mail, first backup"
printf '\n%-22s %10s %10s %10s %8s %8s %8s\n' restore disk written fetched seconds disk/s write/s
restore_row day0 "web, day 0"
restore_row day1 "web, day 1"
restore_row day2 "web, day 2"
restore_row mail "mail"
awk -v bytes="$repository_bytes" -v disk="$(stat -c %s web-day0.img)" -v millis="$verify_millis" \
  -v left="$(du -sb repo | cut -f 1)" -v prune_millis="$(number prune elapsedMs)" 'BEGIN {
  printf "\nThe repository held 4 restore points of %.1f MiB each in %.1f MiB.\n", disk / 1048576, bytes / 1048576
  printf "verify --read-data took %.2f seconds, %.0f MiB/s of what is stored.\n",
    millis / 1000, bytes / 1048576 / ((millis > 0 ? millis : 1) / 1000)
  printf "After a prune of %.2f seconds it holds 1 of them in %.1f MiB.\n", prune_millis / 1000, left / 1048576
}'
