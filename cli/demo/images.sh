#!/bin/bash
# Makes the disk images of the demo from files of this machine's own /usr, without root and without mounting anything.
#
#   images.sh DIRECTORY MIB CHANGED_AREAS
#
# Leaves in DIRECTORY, with MIB mebibytes of files in each disk:
#   web-day0.img   a GPT disk with one ext4 file system
#   web-day1.img   the same disk a day later: files written, removed and replaced, a table changed in place
#   web-day2.img   and another day later
#   web-dayN.json  the changes file of each day, written by the program CHANGED_AREAS
#   mail.img       the disk of a second machine: other partition table, offset and layout, and mostly the same files
set -euo pipefail

cd "$1"
mib=$2
changed_areas=$3
export LC_ALL=C

# A disk is larger than its files: inodes, a journal, and room that was never used.
disk_mib=$((mib * 7 / 4 + 44))
# Daily changes are about one per cent of the files.
table_mib=$((mib / 32 + 1))
log_lines=$((mib * 150))
touched_pages=$((mib / 8))
removed_files=$((mib / 16))

# Where the partitions start. The second machine was set up by an older installer: no block of one disk lines up with the other.
web_offset=2097152
mail_offset=32256

work=$(mktemp -d ./making.XXXXXX)
trap 'chmod -R u+rwX "$work"; rm -rf "$work"' EXIT
files=$work/files

say() { echo "  $*"; }
size() { numfmt --to=iec-i --suffix=B --format=%.1f "$1"; }

# ---------------------------------------------------------------- files

# Divides the entries two levels below /usr, in an order that is mixed but the same every time, into those of both
# machines and those of only one. Left out are entries that would fill a disk alone, and crowded directories, to which
# mke2fs takes quadratic time.
choose() {
  { find /usr -xdev -mindepth 2 -printf '%s\t%h\t%p\n' 2>/dev/null || true; } |
    awk -F '\t' '
      { split($3, part, "/"); entry = "usr/" part[3] "/" part[4]; bytes[entry] += $1 }
      part[5] != "" && ++children[$2] > 1000 { crowded[entry] = 1 }
      END { for (entry in bytes) if (!(entry in crowded)) print bytes[entry] "\t" entry }' |
    sort -R -k 2 --random-source=<(yes) |
    awk -F '\t' -v wanted=$((mib * 1048576)) -v work="$work" '
      $1 > wanted / 4 { next }
      chosen + $1 <= wanted { chosen += $1; print $2 > (work "/" (++n % 8 ? "both" : "only-web")); next }
      others + $1 <= wanted / 8 { others += $1; print $2 > (work "/only-mail") }'
  touch "$work/both" "$work/only-web" "$work/only-mail"
}

# Copies entries of /usr below $files; what this user may not read stays out.
add() {
  local list=$PWD/$1 target=$PWD/$files
  (cd / && xargs -a "$list" -d '\n' -r cp -R --no-dereference --preserve=mode,timestamps,links --parents \
    --target-directory="$target" --) 2>>"$work/unread" || true
}

# Prints LINES lines of a log; every DAY has other ones.
log() {
  awk -v day="$1" -v lines="$2" 'BEGIN {
    for (x = day + 1; i < lines; i++) {
      x = x * 16807 % 2147483647
      printf "2025-06-%02dT%02d:%02d:%02d web app[%d]: GET /item/%d took %d ms\n",
        day + 10, i * 24 / lines, i * 1440 / lines % 60, i * 86400 / lines % 60, x % 30000, x % 7919, x % 311
    }
  }'
}

# Prints rows of a table without end.
rows() {
  awk 'BEGIN { for (x = 1;; n++) { x = x * 16807 % 2147483647; printf "%08d %010d account %d\n", n, x, x % 9973 } }' \
    2>/dev/null || true
}

# ---------------------------------------------------------------- disks

# Makes IMAGE with $files on one partition at byte OFFSET; the partition table comes on standard input.
make_disk() {
  local image=$1 offset=$2 entries
  shift 2
  entries=$(find "$files" | wc -l)
  truncate -s "${disk_mib}M" "$image"
  sfdisk -q --no-reread --no-tell-kernel "$image"
  # The last MiB belongs to the second copy of a GPT.
  mke2fs -q -F -t ext4 -b 4096 -N $((entries * 5 / 4 + 1000)) -d "$files" "$@" \
    -E "offset=$offset,hash_seed=5a17a1e5-0000-4000-8000-000000000001,root_owner=0:0" \
    "$image" $(((disk_mib * 1048576 - offset - 1048576) / 4096))
  check_disk "$image" "$offset"
}

check_disk() {
  e2fsck -fn "$1?offset=$2" >"$work/e2fsck" 2>&1 || {
    cat "$work/e2fsck" >&2
    echo "images.sh: the file system in $1 is not sound" >&2
    exit 1
  }
}

# Writes what the machine does to its disk on DAY, as commands for debugfs.
day_commands() {
  local day=$1 victim
  log "$day" "$log_lines" >"$work/app-day$day.log"
  echo "cd /var/log"
  echo "write $work/app-day$day.log app-day$day.log"
  awk -v day="$day" -v count="$removed_files" 'NR % 50 == day && n++ < count { print "rm /" $0 }' "$work/removable"
  # A newer edition of one file: a line appears in its middle.
  victim=$(sed -n "$((75 + day))p" "$work/removable")
  if [ -n "$victim" ]; then
    awk -v day="$day" '{ print } NR == 20 { print "edition of day " day }' "$files/$victim" >"$work/edition$day"
    echo "rm /$victim"
    echo "cd /${victim%/*}"
    echo "write $work/edition$day ${victim##*/}"
  fi
  # Scattered pages of the table change where they are.
  awk -v day="$day" -v count="$touched_pages" -v blocks=$((table_mib * 256)) 'BEGIN {
    for (x = 100 + day; n < count; n++) {
      x = x * 16807 % 2147483647
      printf "zap_block -f /var/lib/app/table.db -o %d -l %d -p %d %d\n", x % 2048, x % 1024 + 64, x % 255 + 1, x % blocks
    }
  }'
}

# Copies the disk of the day before and lets DAY happen to it.
next_day() {
  local day=$1 image=web-day$1.img
  cp --sparse=always "web-day$((day - 1)).img" "$image"
  day_commands "$day" >"$work/commands$day"
  E2FSPROGS_FAKE_TIME=$((1749513600 + day * 86400)) \
    debugfs -w -f "$work/commands$day" "$image?offset=$web_offset" >"$work/debugfs" 2>&1
  if grep -v -e "^debugfs" -e "^Allocated inode" -e "^$" "$work/debugfs" >&2; then
    echo "images.sh: debugfs did not do what day $day asks of it" >&2
    exit 1
  fi
  check_disk "$image" "$web_offset"
  "$changed_areas" "web-day$((day - 1)).img" "$image" --since "day$((day - 1))" --change-id "day$day" >"web-day$day.json"
  say "$image: $(wc -l <"$work/commands$day") changes on the disk, $(size "$(changed_bytes "web-day$day.json")") changed" \
    "in areas of 64 KiB"
}

changed_bytes() { grep -o '"length":[0-9]*' "$1" | awk -F: '{ sum += $2 } END { print sum + 0 }'; }

# ---------------------------------------------------------------- both machines

mkdir -p "$files/var/lib/app" "$files/var/log" "$files/etc"
choose
add "$work/both"
add "$work/only-web"
chmod -R u+rwX "$files"
rows | head -c "${table_mib}M" >"$files/var/lib/app/table.db"
log 0 "$log_lines" >"$files/var/log/app-day0.log"
echo web >"$files/etc/hostname"
# Plain names only, since debugfs has quoting rules of its own.
(cd "$files" && find usr -type f -links 1 -size -256k -size +8k | grep -E '^[A-Za-z0-9/._+-]+$' | sort) >"$work/removable"

say "files: $(find "$files" -type f | wc -l), together $(size "$(du -sb "$files" | cut -f 1)")," \
  "$(wc -l <"$work/unread") unreadable"
echo "label: gpt
label-id: 5A17A1E5-0000-4000-8000-000000000002
start=$((web_offset / 512)), uuid=5A17A1E5-0000-4000-8000-000000000003" |
  make_disk web-day0.img "$web_offset" -L web -U 5a17a1e5-0000-4000-8000-000000000004
"$changed_areas" web-day0.img --change-id day0 >web-day0.json
say "web-day0.img: $(size "$(stat -c %s web-day0.img)"), $(size "$(changed_bytes web-day0.json)") in use"
next_day 1
next_day 2

(cd "$files" && xargs -a "$OLDPWD/$work/only-web" -d '\n' -r rm -rf --)
rm -rf "$files/var/lib/app" "$files/var/log/app-day0.log"
add "$work/only-mail"
chmod -R u+rwX "$files"
echo mail >"$files/etc/hostname"
echo "label: dos
label-id: 0x5a17a1e5
start=$((mail_offset / 512)), type=83" |
  make_disk mail.img "$mail_offset" -L mail -U 5a17a1e5-0000-4000-8000-000000000005
say "mail.img: $(size "$(stat -c %s mail.img)"), $(size "$(du -sb "$files" | cut -f 1)") of files"
