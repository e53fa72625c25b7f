# shellcheck shell=bash
# Installing Debian packages, for the scripts that source this.

# need_packages WHY PACKAGE…: installs those that are not there, or says exactly what is missing.
need_packages() {
  local why=$1 package missing=() as_root=()
  shift
  if ! command -v apt-get >/dev/null; then
    printf 'This is not a Debian system. %s, what these Debian packages hold is needed: %s\n' "$why" "$*" >&2
    return 1
  fi
  for package in "$@"; do
    [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $EUID -ne 0 ]]; then
    if ! command -v sudo >/dev/null; then
      printf '%s, these Debian packages are missing and only root can install them:\n  apt-get install %s\n' "$why" "${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  printf '%s, installing: %s\n' "$why" "${missing[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q --yes --no-install-recommends "${missing[@]}"
}
