"""docker-registry-client-async: drca.py COMMAND ENDPOINT REPOSITORY USER PASSWORD [ARGUMENT…], with the gateway's CA in SSL_CERT_FILE."""

import asyncio
import base64
import hashlib
import json
import re
import sys

from docker_registry_client_async import DockerRegistryClientAsync, FormattedSHA256, ImageName, Manifest
from docker_registry_client_async.specs import DockerAuthentication

command, endpoint, repository, user, password, *arguments = sys.argv[1:]
OCI = "application/vnd.oci.image.manifest.v1+json"


def descriptor(media_type, body):
    return {"mediaType": media_type, "size": len(body), "digest": "sha256:" + hashlib.sha256(body).hexdigest()}


async def push_blob(client, body, in_pieces):
    name = ImageName(repository, endpoint=endpoint)
    digest = FormattedSHA256.calculate(body)
    location = (await client.post_blob(name)).location
    half = len(body) // 2
    if in_pieces:
        for offset, piece in ((0, body[:half]), (half, body[half:])):
            location = (await client.patch_blob_upload(location, piece, offset=offset)).location
        put = await client.put_blob_upload(location, digest)
    else:
        put = await client.put_blob_upload(location, digest, data=body)
    assert put.digest == digest, (put.digest, digest)
    assert (await client.head_blob(name, digest)).result


async def push(client, tag, file):
    with open(file, "rb") as opened:
        layer = opened.read()
    configuration = b"{}"
    await push_blob(client, configuration, False)
    await push_blob(client, layer, True)
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": OCI,
        "config": descriptor("application/vnd.oci.empty.v1+json", configuration),
        "layers": [descriptor("application/octet-stream", layer)],
    }).encode()
    put = await client.put_manifest(ImageName(repository, endpoint=endpoint, tag=tag), Manifest(manifest, media_type=OCI))
    print(put.digest)


async def pull(client, tag, file):
    name = ImageName(repository, endpoint=endpoint, tag=tag)
    got = await client.get_manifest(name)
    layer, = got.manifest.get_json()["layers"]
    digest = FormattedSHA256.parse(layer["digest"])
    with open(file, "wb") as opened:
        await client.get_blob_to_disk(name, digest, opened, file_is_async=False)
    print(got.manifest.get_digest())


async def main():
    async with DockerRegistryClientAsync() as client:
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        await client.add_credentials(credentials=credentials, endpoint=re.compile(re.escape(endpoint)))
        if command == "push":
            await push(client, *arguments)
        elif command == "pull":
            await pull(client, *arguments)
        elif command == "tags":
            answer = await client.get_tag_list(ImageName(repository, endpoint=endpoint))
            print(*sorted(tag.tag if isinstance(tag, ImageName) else tag for tag in answer.tags), sep="\n")
        elif command == "repositories":
            print(*(await client.get_catalog(ImageName(repository, endpoint=endpoint))).catalog["repositories"], sep="\n")
        elif command == "delete":
            # It deletes with a token for pushing, which docker's registry does not take either.
            DockerAuthentication.SCOPE_REPOSITORY_PUSH_PATTERN = "repository:{0}:delete"
            name = ImageName(repository, endpoint=endpoint, digest=FormattedSHA256.parse(arguments[0]))
            answer = await client.delete_manifest(name)
            print(answer.client_response.status)
            answer.client_response.raise_for_status()
        else:
            sys.exit(f"no such command: {command}")


asyncio.run(main())
