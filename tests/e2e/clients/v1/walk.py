"""Walks through a v1 registry with PyPI's docker-registry-client: walk.py URL CA NAME TAG [USER PASSWORD]

Prints the repositories that it finds, the tags of NAME, and the images that TAG stands on; with a user it sets a tag and takes it away.
"""

import sys

from docker_registry_client import DockerRegistryClient

url, ca, name, tag, *login = sys.argv[1:]
user, password = login or (None, None)
client = DockerRegistryClient(url, verify_ssl=ca, api_version=1, username=user, password=password, api_timeout=60)
assert client.api_version == 1
if login:
    # Its search says nothing of X-Docker-Token, so it is refused without a password.
    print("repositories", *sorted(client.repositories()))
repository = client.repository(name)
print("tags", *sorted(repository.tags()))
print("version", repository.data(tag).get("docker_version"))
image = repository.image(tag)
assert image.get_json()["id"] == image.image_id, image.get_json()
print("ancestry", *image.ancestry())
if login:
    repository.tag("another", image.image_id)
    repository.refresh()
    assert sorted(repository.tags()) == sorted({tag, "another"}), repository.tags()
    repository.untag("another")
    repository.refresh()
    assert repository.tags() == [tag], repository.tags()
