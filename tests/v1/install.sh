#!/usr/bin/env bash
# Installs the real docker-registry 0.9.1 (Python 2) into a directory, for the tests. Run again, it does nothing.
#
#   tests/v1/install.sh DIR
#
# Takes a CPython 2.7 from pyenv, or from PATH, or else Debian 11's, put into DIR/debian by debootstrap (needs root).
# DOCKGATE_TEST_DEBIAN_PYTHON=1 takes Debian 11's always: it tries that way out where another would be taken.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 64; }
mkdir -p "$1"
directory=$(cd "$1" && pwd)
libraries=$directory/lib
complete=$directory/complete
pins=(
  blinker==1.3 Flask==0.10.1 Werkzeug==0.14.1 Jinja2==2.8.1 MarkupSafe==1.1.1 itsdangerous==0.24 gunicorn==19.1.1
  PyYAML==3.11 requests==2.3.0 sqlalchemy==0.9.4 boto==2.34.0 redis==2.10.3 simplejson==3.6.2 setuptools==41.2.0
  backports.lzma==0.0.14 gevent==1.4.0 greenlet==0.4.17
)
registry=(docker-registry==0.9.1 docker-registry-core==2.0.3)
recipe=$(sha256sum <"${BASH_SOURCE[0]}" | cut -d' ' -f1)

say() { echo "docker-registry 0.9.1: $*"; }
fail() { say "$*" >&2; exit 69; }

# Two test processes may ask at once: the second waits for the first.
exec 9>"$directory/lock"
flock 9

if [ "$(cat "$complete" 2>/dev/null)" = "$recipe" ]; then
  say "already in $directory"
  exit 0
fi
rm -rf "$complete" "$libraries" "$directory/python2.7" "$directory/install.log"

# Which python2.7 really runs and has pip: pyenv's shim is in PATH even where no 2.7 is chosen.
usable() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null && "$1" -m pip --version >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in "$HOME"/.pyenv/versions/2.7*/bin/python2.7 "$(command -v python2.7 || true)"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ] && [ -z "${DOCKGATE_TEST_DEBIAN_PYTHON:-}" ] && usable "$candidate"; then
      echo "$candidate"
      return
    fi
  done
}

# Debian 11 was the last to carry a CPython 2.7. It stays in its folder; nothing of it is installed in the system.
install_debian() {
  local root=$directory/debian
  [ "$(id -u)" -eq 0 ] || fail "no python2.7 with pip here, and Debian 11's needs root to be put into $root: run as root, or install python2.7 (pyenv install 2.7.18)"
  command -v debootstrap >/dev/null || fail "no python2.7 with pip here, and debootstrap is missing: apt-get install debootstrap, or install python2.7 (pyenv install 2.7.18)"
  if [ "$(cat "$root/recipe" 2>/dev/null)" != "$recipe" ]; then
    say "no python2.7 here: putting Debian 11's into $root (a minute)"
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,python2.7-dev,python-setuptools,python-pip-whl,gcc,libc6-dev,liblzma-dev \
      bullseye "$root" >>"$directory/install.log" 2>&1 || { tail -n 5 "$directory/install.log" >&2; fail "debootstrap failed: see $directory/install.log"; }
    echo "$recipe" >"$root/recipe"
  fi
  # What the machine needs to reach a package index, it needs in there too.
  local file
  for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cp -L "$file" "$root$file"
  done
}

pip_install() {
  say "installing $1 of 2 sets of packages"
  shift
  "${pip[@]}" install --quiet --no-cache-dir --target "$target" "$@" >>"$directory/install.log" 2>&1 ||
    { tail -n 15 "$directory/install.log" >&2; fail "pip failed: see $directory/install.log"; }
}

python=$(find_python)
target=$libraries
if [ -n "$python" ]; then
  say "python: $python"
  pip=("$python" -m pip)
  ln -s "$python" "$directory/python2.7"
else
  install_debian
  root=$directory/debian
  target=/lib-v1
  rm -rf "$root$target"
  # Debian's pip is split into wheels, all of which have to be in the path.
  wheels=$(cd "$root" && echo usr/share/python-wheels/*.whl | sed 's|usr/|/usr/|g; s| |:|g')
  pip=(chroot "$root" env PYTHONPATH="$wheels" PIP_NO_WARN_SCRIPT_LOCATION=1 python2.7 -m pip)
  # Its own loader and libraries, so that it also runs where those of Debian 11 are gone.
  loader=$(cd "$root" && echo lib/*-linux-*/ld-*.so | head -n 1)
  machine=$(basename "$(dirname "$loader")")
  {
    echo '#!/bin/sh'
    echo "export PYTHONHOME='$root/usr'"
    echo "exec '$root/$loader' --library-path '$root/lib/$machine:$root/usr/lib/$machine' '$root/usr/bin/python2.7' \"\$@\""
  } >"$directory/python2.7"
  chmod +x "$directory/python2.7"
fi

pip_install 1 "${pins[@]}"
pip_install 2 --no-deps "${registry[@]}"
[ "$target" = "$libraries" ] || mv "$directory/debian$target" "$libraries"

# Lost by --target, because two distributions share these packages.
touch "$libraries/docker_registry/__init__.py" "$libraries/docker_registry/drivers/__init__.py"
# Imported always, used only with privileged keys, which the tests do not have.
echo 'RSA = BIO = EVP = None' >"$libraries/M2Crypto.py"

say "checking that it can be imported"
(cd "$directory" && PYTHONPATH=$libraries DOCKER_REGISTRY_CONFIG=$libraries/config/config_sample.yml SETTINGS_FLAVOR=local \
  STORAGE_PATH=$directory/import-check SEARCH_BACKEND='' "$directory/python2.7" -c 'import gevent, gunicorn, docker_registry.wsgi' >>"$directory/install.log" 2>&1) ||
  { tail -n 15 "$directory/install.log" >&2; fail "it cannot be imported: see $directory/install.log"; }
rm -rf "$directory/import-check"

echo "$recipe" >"$complete"
say "in $directory"
