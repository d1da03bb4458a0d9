#!/usr/bin/env bash
# Makes sure that this machine can build Serin: Rust, a C compiler and cmake (for C code inside some crates), and
# ca-certificates (cargo downloads over TLS). Says nothing when all is there; installs with apt-get what is not.
set -euo pipefail

# The oldest Rust that builds Serin: rust-version in Cargo.toml.
rust_needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$(dirname "$0")/../../Cargo.toml")

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# at_least FOUND NEEDED: compares versions part by part.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

have_certificates() {
    local place
    for place in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem "${SSL_CERT_FILE:-}"; do
        [[ -n $place && -s $place ]] && return
    done
    return 1
}

have_rust() {
    local version
    have cargo && version=$(cargo --version 2>/dev/null) && at_least "$(cut -d ' ' -f 2 <<<"$version")" "$rust_needed"
}

as_root() {
    if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

# Whether packages can be installed here at all; if not, says why.
can_install() {
    if ! have apt-get; then
        say "this machine has no apt-get"
    elif [[ $(id -u) -ne 0 ]] && ! have sudo; then
        say "installing needs root, and there is no sudo"
    else
        return 0
    fi
    return 1
}

updated=no
update() {
    [[ $updated == yes ]] || as_root apt-get update -qq
    updated=yes
}

install() {
    say "installing $*"
    update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The version of a package that apt-get would install; empty if it has none.
candidate() { apt-cache policy "$1" | sed -n 's/^ *Candidate: \([0-9][^-+~]*\).*/\1/p'; }

no_rust() {
    say "Serin needs Rust $rust_needed or newer, and no package of this machine's system has it."
    say "Get it from https://rustup.rs, with"
    say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    say "and run this again."
    exit 1
}

get_rust() {
    if ! have rustup; then
        can_install || no_rust
        update
        if [[ -n $(candidate rustup) ]]; then
            install rustup
        elif at_least "$(candidate cargo)" "$rust_needed"; then
            install cargo rust-clippy rustfmt
            return
        else
            no_rust
        fi
    fi
    say "installing the stable Rust toolchain with rustup"
    rustup toolchain install stable --profile minimal --component clippy,rustfmt
    rustup default stable
}

missing=()
have cc || missing+=(gcc libc6-dev)
have cmake || missing+=(cmake)
have_certificates || missing+=(ca-certificates)
if ((${#missing[@]})); then
    can_install || { say "please install: ${missing[*]}"; exit 1; }
    install "${missing[@]}"
fi
have_rust || get_rust
hash -r
have_rust || { say "cargo is still older than $rust_needed: $(cargo --version 2>&1 || true)"; no_rust; }
