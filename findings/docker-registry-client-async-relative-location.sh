#!/usr/bin/env bash
# docker-registry-client-async (PyPI) cannot push to a registry whose answers to POST of an upload have a relative Location, which
# the distribution-spec allows and `http.relativeurls: true` of docker's registry makes: it reads scheme and host out of the
# text, and asks a URL that is made of its path.
#
# Seen with docker-registry-client-async 1.0.3 (aiohttp 3.14.5) and docker's registry 2.8.2:
#   absolute Location: pushed
#   relative Location: InvalidUrlClientError
# Needs python3 with venv and docker-registry (Debian: docker-registry); makes everything in a temporary folder. Fails if what is
# seen changes.
set -euo pipefail

work=$(mktemp -d)
registry=
trap '[[ -z $registry ]] || kill "$registry"; rm -rf "$work"' EXIT
cd "$work"

python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check docker-registry-client-async==1.0.3 aiohttp==3.14.5

cat >push.py <<'PYTHON'
import asyncio
import sys

from docker_registry_client_async import DockerRegistryClientAsync, FormattedSHA256, ImageName


async def main():
    async with DockerRegistryClientAsync() as client:
        body = b"a layer"
        name = ImageName("app", endpoint=sys.argv[1])
        location = (await client.post_blob(name)).location
        try:
            await client.put_blob_upload(location, FormattedSHA256.calculate(body), data=body)
            print("pushed")
        except Exception as error:
            print(type(error).__name__)


asyncio.run(main())
PYTHON

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
for relative in false true; do
  cat >registry.yml <<YAML
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $work/$relative } }
http: { addr: "127.0.0.1:$port", relativeurls: $relative }
YAML
  docker-registry serve registry.yml >log 2>&1 &
  registry=$!
  for _ in $(seq 50); do
    python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/v2/')" 2>/dev/null && break
    sleep 0.2
  done
  kind=absolute
  [[ $relative == false ]] || kind=relative
  printf '%s Location: %s\n' "$kind" "$(DRCA_DEFAULT_PROTOCOL=http env/bin/python push.py "127.0.0.1:$port")" | tee -a seen
  kill "$registry"
  wait "$registry" 2>/dev/null || true
  registry=
done

diff seen - <<'TEXT'
absolute Location: pushed
relative Location: InvalidUrlClientError
TEXT
