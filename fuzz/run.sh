#!/usr/bin/env bash
# Fuzzes every target, or those that are named, for as many seconds each. The first finding ends it, with its input kept
# in fuzz/artifacts. What was found worth keeping on the way goes to fuzz/corpus, which is not committed.
#   fuzz/run.sh SECONDS [TARGET…]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo_fuzz=0.13.2
seconds=$1
shift

main() {
  command -v c++ >/dev/null || { printf 'libFuzzer needs a C++ compiler: apt-get install g++\n' >&2; exit 1; }
  cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked --debug "cargo-fuzz@$cargo_fuzz"
  # Coverage is compiled in by options of an unstable compiler; the stable one has them too. What is fuzzed has no unsafe
  # code, so there is nothing for a sanitizer to find.
  export RUSTC_BOOTSTRAP=1
  local targets=("$@") target
  [[ $# -gt 0 ]] || mapfile -t targets < <(cargo fuzz list)
  [[ ${#targets[@]} -gt 0 ]] || { printf 'There are no targets.\n' >&2; exit 1; }
  cargo fuzz build --sanitizer none
  # Some targets write a file for each input: in memory, where there is a place for that.
  TMPDIR=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
  export TMPDIR
  trap 'rm -rf --one-file-system "$TMPDIR"' EXIT
  for target in "${targets[@]}"; do
    printf '\n==> %s for %s s\n' "$target" "$seconds"
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
      -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
  done
  printf '\nNothing was found in %d targets.\n' "${#targets[@]}"
}

main "$@"
