#!/usr/bin/env bash
# Installs what counts instructions, where it is missing: Valgrind, and the runner of the crate `gungraun` in the version that Cargo.lock
# has. Prints the runner's path.
set -euo pipefail

tools="${XDG_CACHE_HOME:-$HOME/.cache}/serin/bench-tools"
version=$(sed -n '/^name = "gungraun"$/{n;s/version = "\(.*\)"/\1/p}' "$(dirname "$0")/../Cargo.lock")
runner="$tools/bin/gungraun-runner"

if ! command -v valgrind >/dev/null; then
  as_root=()
  ((EUID == 0)) || as_root=(sudo)
  "${as_root[@]}" apt-get update -q >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends valgrind >&2
fi
if [[ ! -x $runner ]] || ! grep -q "\"gungraun-runner $version " "$tools/.crates2.json"; then
  cargo install gungraun-runner --version "$version" --locked --root "$tools" >&2
fi
echo "$runner"
