#!/bin/bash
# Installs Debian's Go if there is none, and says what to do if it is older than a go.mod wants.
#
#   need-go.sh GO.MOD
set -euo pipefail

mod=$1
"$(dirname "$0")/need.sh" go:golang-go

wanted=$(sed -n 's/^go //p' "$mod")
# Not in the directory of go.mod, and no other toolchain: there an old Go fails, and a newer one may be fetched.
found=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
found=${found#go}
at_least() {
  [ "$(printf '%s\n' "$1" "$2" | sort --version-sort | head --lines=1)" = "$1" ]
}
if at_least "$wanted" "$found"; then
  exit 0
fi
# Since 1.21 Go fetches the toolchain that go.mod names, unless it is told not to.
if at_least 1.21 "$found" && [ "$(cd / && go env GOTOOLCHAIN)" != local ]; then
  exit 0
fi
cat >&2 <<END
need-go.sh: $mod wants Go $wanted, and $(command -v go) is $found.
Put a newer one first in PATH: unpack the archive from https://go.dev/dl/ and add its bin directory, or install
golang-go from Debian's backports. From Go 1.21 on, \`export GOTOOLCHAIN=auto\` suffices: Go then fetches what it needs.
END
exit 1
