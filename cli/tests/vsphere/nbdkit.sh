#!/bin/sh
# Stands in for nbdkit with its vddk plugin and VMware's library, which no test has: it takes the same arguments, and
# serves the file of the disk's name in the directory that is given as the library's with the real nbdkit.
set -eu

[ "$1" != --dump-plugin ] || exit 0
readonly= pid= socket= library= password= file= previous=
for argument in "$@"; do
    case "$previous" in
        --pidfile) pid=$argument ;;
        --unix) socket=$argument ;;
    esac
    case "$argument" in
        --readonly) readonly=$argument ;;
        libdir=*) library=${argument#libdir=} ;;
        password=+*) password=${argument#password=+} ;;
        file=*) file=${argument##*/} ;;
    esac
    previous=$argument
done
cat "$password" >>"$library/passwords"
echo >>"$library/passwords"
[ ! -e "$library/fails" ] || { echo "nbdkit: vddk: cannot log in with $(cat "$password")" >&2; exit 3; }
exec nbdkit --foreground $readonly --exit-with-parent --pidfile "$pid" --unix "$socket" file "$library/$file"
