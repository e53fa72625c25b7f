#!/usr/bin/env bash
# Sees to what the build needs: a C compiler, make, cmake (zlib-ng is built with it) and a recent Rust.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/packages.sh
source "$root/deploy/packages.sh"

main() {
  need_tools
  need_rust
}

# Any compiler, make and cmake will do; only what is missing is asked of the system.
need_tools() {
  local packages=()
  command -v cc >/dev/null || packages+=(gcc libc6-dev)
  command -v make >/dev/null || packages+=(make)
  command -v cmake >/dev/null || packages+=(cmake)
  [[ ${#packages[@]} -eq 0 ]] || need_packages 'For the build' "${packages[@]}"
}

need_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
  [[ -n $wanted ]] || { printf 'Cargo.toml names no rust-version\n' >&2; return 1; }
  if ! command -v cargo >/dev/null; then
    printf 'Rust is not installed: %s or newer is needed. https://rustup.rs tells how; then open a new shell.\n' "$wanted" >&2
    return 1
  fi
  # rustup fetches the toolchain that rust-toolchain.toml names; a Rust from elsewhere does not look at that file.
  if ! found=$(cd "$root" && rustc --version | cut -d' ' -f2) || [[ -z $found ]]; then
    printf 'The Rust that rust-toolchain.toml names cannot be had. With rustup: rustup toolchain install %s.0\n' "$wanted" >&2
    printf 'To use the one that is there, if it is %s or newer: RUSTUP_TOOLCHAIN=stable make …\n' "$wanted" >&2
    return 1
  fi
  if [[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort --version-sort | head -n 1) != "$wanted" ]]; then
    printf 'Rust %s is too old: %s or newer is needed. With rustup: rustup update stable\n' "$found" "$wanted" >&2
    return 1
  fi
}

main
