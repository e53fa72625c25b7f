#!/usr/bin/env bash
# Everything that must pass before a change lands. All steps run, whichever fails;
# the exit status is 0 only when all of them passed.
# shellcheck disable=SC2317  # step calls functions by their names
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
binary=${CARGO_TARGET_DIR:-target}/release/dockgate
failed=()
# What each step that failed said of it.
why=$(mktemp)
trap 'rm -f "$why" "$why.step"' EXIT

main() {
  step 'what the tests need' tests/install.sh
  [[ ${#failed[@]} -eq 0 ]] || finish
  look_for_loop_devices
  step 'format' cargo fmt --check
  step 'lints' cargo clippy --locked --all-targets -- -D warnings
  step 'fuzz targets' fuzz_targets
  step 'shell scripts' shell_scripts
  step 'licences and sources of the dependencies' licences
  step 'dependencies that nothing uses' cargo machete
  step 'unit and integration tests' cargo test --locked
  step 'what must not compile' what_must_not_compile
  step 'release build' cargo build --release --locked
  # Without optimisation: building the driver may not take longer than the siege.
  step 'siege, short' short_siege
  step 'real clients' tests/e2e/run.sh "$binary"
  step 'OCI conformance' tests/conformance/run.sh "$binary"
  finish
}

# Some containers have none. What needs them then says that it was left out; without this it would fail.
look_for_loop_devices() {
  [[ -e /dev/loop-control ]] && losetup -f >/dev/null 2>&1 && return
  export DOCKGATE_NO_LOOP_DEVICES=1
  printf '\nNOT TESTED: power cuts and a disk that fails, as there are no loop devices here.\n'
}

step() {
  local name=$1 began=$SECONDS
  shift
  printf '\n==> %s\n' "$name"
  if "$@" </dev/null 2>&1 | tee "$why.step"; then
    printf -- '--- %s: passed in %d s\n' "$name" "$((SECONDS - began))"
  else
    printf -- '--- %s: FAILED after %d s\n' "$name" "$((SECONDS - began))"
    failed+=("$name")
    # The messages of tests that panicked, of checks of clients, and of compilers.
    { printf '%s:\n' "$name" && grep -aE -A 3 '^thread .* panicked at|^FAILED |^(error|warning)(\[|:)' "$why.step" | head -n 60; } >>"$why" || true
  fi
}

shell_scripts() { git ls-files -z -- '*.sh' .ci/run | xargs -0 shellcheck; }

# That they build; `make fuzz` runs them.
fuzz_targets() { CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target} cargo check --locked --manifest-path fuzz/Cargo.toml --bins; }

# The stable compiler looks only whether these examples fail, and not whether it is for the reason that they name.
what_must_not_compile() { RUSTC_BOOTSTRAP=1 cargo test --locked --doc; }

licences() {
  cargo deny --locked check licenses bans sources &&
    printf 'Known vulnerabilities are not checked here: their list comes from the network. make audit checks them.\n'
}

short_siege() { cargo bench --locked --profile dev --bench siege -- --short --check --binary "$(realpath "$binary")"; }

finish() {
  if [[ ${#failed[@]} -eq 0 ]]; then
    printf '\nAll steps passed in %d s.\n' "$SECONDS"
    exit 0
  fi
  printf '\nFailed:\n'
  printf '  %s\n' "${failed[@]}"
  printf '\nWhat was said of it:\n'
  cat "$why"
  exit 1
}

main
