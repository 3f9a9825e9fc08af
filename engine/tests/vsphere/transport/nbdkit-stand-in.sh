#!/bin/sh
# Stands in for nbdkit with its vddk plugin and VMware's library, which no test has: it takes the same arguments, writes
# down what it was told, and serves the file `image` of the directory that is given as the library's with the real nbdkit.
set -eu

if [ "$1" = --dump-plugin ]; then
    [ "$2" = vddk ] && [ -f "${3#libdir=}/plugin" ] || { echo "cannot open plugin \"vddk\"" >&2; exit 1; }
    exit 0
fi

pid= socket= library= password=
previous=
for argument in "$@"; do
    case "$previous" in
        --pidfile) pid=$argument ;;
        --unix) socket=$argument ;;
    esac
    case "$argument" in
        libdir=*) library=${argument#libdir=} ;;
        password=+*) password=${argument#password=+} ;;
    esac
    previous=$argument
done
printf '%s\n' "$@" >"$library/arguments"
cp "$password" "$library/password"
stat -c %a "$password" >"$library/mode"
printf %s "${CARGO_MANIFEST_DIR-hidden}" >"$library/variable"

case "$(cat "$library/behaviour" 2>/dev/null || true)" in
    fail)
        echo "nbdkit: vddk: cannot log in" >&2
        echo "tried with $(cat "$password")" >&2
        exit 3
        ;;
    hang) exec tail -f /dev/null ;;
esac
exec nbdkit --foreground --readonly --exit-with-parent --pidfile "$pid" --unix "$socket" file "$library/image"
