#!/usr/bin/env bash
# Runs the docker-registry 0.9.1 that install.sh put into DIR, in the foreground, on 127.0.0.1:PORT, keeping its files in STORAGE.
#
#   tests/v1/run.sh DIR PORT STORAGE
#
# STANDALONE=false makes it ask an index; what else its sample configuration reads from the environment can be set too.
set -euo pipefail

[ $# -eq 3 ] || { echo "usage: $0 DIR PORT STORAGE" >&2; exit 64; }
directory=$(cd "$1" && pwd)
port=$2
mkdir -p "$3"
storage=$(cd "$3" && pwd)
[ -e "$directory/complete" ] || { echo "docker-registry 0.9.1 is not in $directory: run tests/v1/install.sh $1" >&2; exit 69; }

export PYTHONPATH=$directory/lib PYTHONDONTWRITEBYTECODE=1
export DOCKER_REGISTRY_CONFIG=$directory/lib/config/config_sample.yml SETTINGS_FLAVOR=local
export STORAGE_PATH=$storage STANDALONE=${STANDALONE:-true}
export SEARCH_BACKEND=sqlalchemy SQLALCHEMY_INDEX_DATABASE=sqlite:///$storage/index.db
cd "$storage"
exec "$directory/python2.7" -m gunicorn.app.wsgiapp -k gevent -w 1 --graceful-timeout 1 -t 900 -b "127.0.0.1:$port" docker_registry.wsgi:application
