# Shared by the scripts beside it: where the checkout is, where cargo is, how to stop with advice.
# Sourced, never run. Promise: afterwards the working directory is the root of the checkout.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# PostgreSQL refuses an unset or unknown locale, and messages are compared whole.
export LC_ALL=C.UTF-8

die() { # what happened, what to do
    printf 'error: %s\n  do: %s\n' "$1" "$2" >&2
    exit 1
}

home_directory() {
    if [ -n "${HOME:-}" ]; then printf '%s' "$HOME"; else getent passwd "$(id -u)" | cut -d: -f6; fi
}

# A login shell puts cargo on PATH; make under cron, sudo or CI often does not.
find_cargo() {
    local cargo_home
    if command -v cargo >/dev/null; then return; fi
    cargo_home=${CARGO_HOME:-$(home_directory)/.cargo}
    if [ -x "$cargo_home/bin/cargo" ]; then
        export PATH="$cargo_home/bin:$PATH"
        return
    fi
    die "cargo is neither on PATH nor in $cargo_home/bin" \
        "install Rust $(rust_version) or newer with rustup, then run this again"
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml; }

# The directory cargo builds into.
target_directory() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }
