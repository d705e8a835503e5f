#!/bin/sh
# Installs crisol on Linux or macOS:
#
#   curl -LsSf https://github.com/crisol-ml/crisol/releases/latest/download/install.sh | sh
#
# The program goes to ~/.local/bin, manual pages and completions to ~/.local/share.
#   CRISOL_VERSION=0.1.0         another version than the latest
#   CRISOL_INSTALL_DIR=DIR       another folder for the program
#   CRISOL_DOWNLOAD_URL=URL      another place with the archives and their sums
# `sh install.sh --uninstall` removes what it installed.
set -eu

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

# The name of the archive for this machine.
target() {
    case $(uname -m) in
        x86_64 | amd64) cpu=x86_64 ;;
        aarch64 | arm64) cpu=aarch64 ;;
        *) fail "there is no program for $(uname -m); the README says how to build it" ;;
    esac
    case $(uname -s) in
        Linux) echo "$cpu-unknown-linux-$(libc)" ;;
        Darwin) echo "$cpu-apple-darwin" ;;
        *) fail "there is no program for $(uname -s); on Windows use install.ps1" ;;
    esac
}

# The program for musl needs no C library. It serves where glibc is missing or older than 2.17.
libc() {
    version=$(getconf GNU_LIBC_VERSION 2>/dev/null) || version=
    minor=${version#glibc 2.}
    minor=${minor%%.*}
    case $minor in
        '' | *[!0-9]*) echo musl ;;
        *) if [ "$minor" -ge 17 ]; then echo gnu; else echo musl; fi ;;
    esac
}

download() { # URL FILE
    if command -v curl >/dev/null; then
        curl -fsSL --retry 3 -o "$2" "$1" || fail "cannot download $1"
    elif command -v wget >/dev/null; then
        wget -q -O "$2" "$1" || fail "cannot download $1"
    else
        fail "curl or wget is needed"
    fi
}

check_sum() { # SUMS, in the folder of the file that they name
    if command -v sha256sum >/dev/null; then
        sha256sum -c "$1" >/dev/null 2>&1
    else
        shasum -a 256 -c "$1" >/dev/null 2>&1
    fi || fail "the archive is not the one of the release (its sha256 sum differs); try again"
}

bin=${CRISOL_INSTALL_DIR:-$HOME/.local/bin}
share=${XDG_DATA_HOME:-$HOME/.local/share}
bash=$share/bash-completion/completions/crisol
fish=$share/fish/vendor_completions.d/crisol.fish
zsh=$share/zsh/site-functions/_crisol

if [ "${1:-}" = --uninstall ]; then
    rm -f "$bin/crisol" "$bash" "$fish" "$zsh" "$share/man/man1/crisol.1" \
        "$share/man/man1/crisol-"*.1
    echo "crisol is removed. Its runs and the models in the cache are where they were."
    exit 0
elif [ $# -gt 0 ]; then
    fail "unknown argument $1; there is --uninstall"
fi

releases=https://github.com/crisol-ml/crisol/releases
if [ -n "${CRISOL_DOWNLOAD_URL:-}" ]; then
    from=$CRISOL_DOWNLOAD_URL
elif [ -n "${CRISOL_VERSION:-}" ]; then
    from=$releases/download/v${CRISOL_VERSION#v}
else
    from=$releases/latest/download
fi

name=crisol-$(target)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "Downloading $name.tar.gz"
download "$from/$name.tar.gz" "$name.tar.gz"
download "$from/$name.tar.gz.sha256" "$name.tar.gz.sha256"
check_sum "$name.tar.gz.sha256"
tar -xzf "$name.tar.gz"
cd "$name"
# Before an old program is replaced.
./crisol --version >/dev/null || fail "the program for $name does not run on this machine"

mkdir -p "$bin" "$share/man/man1" "$(dirname "$bash")" "$(dirname "$fish")" "$(dirname "$zsh")"
# Renamed into its place: a crisol that runs meanwhile goes on.
cp crisol "$bin/.crisol.new"
mv "$bin/.crisol.new" "$bin/crisol"
cp man/*.1 "$share/man/man1"
cp completions/crisol.bash "$bash"
cp completions/crisol.fish "$fish"
cp completions/_crisol "$zsh"

echo "$("$bin/crisol" -V) is in $bin. Try: crisol run"
case :$PATH: in
    *:"$bin":*) ;;
    *) echo "$bin is not in PATH. Add to your shell's profile: export PATH=\"$bin:\$PATH\"" ;;
esac
