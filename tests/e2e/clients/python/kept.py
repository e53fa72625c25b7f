"""Pushes by `requests` over connections that are kept, refused and accepted ones mixed: kept.py PUSHES USER PASSWORD OTHER URL…

Bodies are sent whole before an answer is read, as requests does it: a server that refuses and closes before it has read the body
is seen here as a ConnectionError. None may happen, each push gets the status that is right for it, what was accepted is there byte
for byte, and what was refused is not. USER may push to team/**, and not to OTHER.
"""

import concurrent.futures
import hashlib
import itertools
import os
import random
import sys

import requests
from requests.adapters import HTTPAdapter

pushes, user, password, other, *urls = sys.argv[1:]
WORKERS = 4
SIZES = (1, 700, 16_000, 65_537, 200_000, 1_500_000)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
good = (user, password)


def digest_of(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


def pieces(body):
    """Without a length: requests then sends it in chunks."""
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000]


class Pusher:
    """What one worker does, with a session of its own."""

    def __init__(self, number, url):
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = os.environ["SSL_CERT_FILE"]
        self.adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, pool_block=True, max_retries=0)
        self.session.mount(url, self.adapter)
        self.random = random.Random(number)
        self.accepted = {}
        self.refused = []
        self.wrong = []
        self.lost = []

    def uploads(self, repository="team/kept"):
        return f"{self.url}/v2/{repository}/blobs/uploads/"

    def begin(self):
        answer = self.session.post(self.uploads(), auth=good)
        assert answer.status_code == 202, (answer.status_code, answer.text)
        return requests.compat.urljoin(self.url, answer.headers["Location"])

    # Each returns the statuses that are right, and the answer.

    def whole(self, body):
        return {201}, self.session.post(self.uploads(), params={"digest": digest_of(body)}, data=body, auth=good)

    def two_steps(self, body):
        return {201}, self.session.put(self.begin(), params={"digest": digest_of(body)}, data=body, auth=good)

    def three_steps(self, body):
        answer = self.session.patch(self.begin(), data=pieces(body), auth=good)
        assert answer.status_code == 202, (answer.status_code, answer.text)
        where = requests.compat.urljoin(self.url, answer.headers["Location"])
        return {201}, self.session.put(where, params={"digest": digest_of(body)}, auth=good)

    def no_right(self, body):
        where = self.uploads(other)
        return {403, 404}, self.session.post(where, params={"digest": digest_of(body)}, data=body, auth=good)

    def no_right_in_chunks(self, body):
        return {403, 404}, self.session.put(f"{self.url}/v2/{other}/manifests/1", data=pieces(body), auth=good)

    def no_login(self, body):
        return {401}, self.session.post(self.uploads(), params={"digest": digest_of(body)}, data=body)

    def no_login_in_chunks(self, body):
        return {401}, self.session.post(self.uploads(), params={"digest": digest_of(body)}, data=pieces(body))

    def bad_token(self, body):
        headers = {"Authorization": "Bearer nonsense"}
        where = self.uploads() + 32 * "0"
        return {401}, self.session.put(where, params={"digest": digest_of(body)}, data=body, headers=headers)

    def other_digest(self, body):
        return {400}, self.session.put(self.begin(), params={"digest": digest_of(b"other" + body)}, data=body, auth=good)

    def no_such_upload(self, body):
        where = self.uploads() + 32 * "0"
        return {404}, self.session.put(where, params={"digest": digest_of(body)}, data=body, auth=good)

    def no_such_route(self, body):
        return {404, 405}, self.session.put(f"{self.url}/v2/team/kept/nothing/at/all", data=body, auth=good)

    def no_manifest(self, body):
        headers = {"Content-Type": MANIFEST}
        return {400, 404, 413}, self.session.put(f"{self.url}/v2/team/kept/manifests/1", data=body, headers=headers, auth=good)

    def push(self, turn):
        size = self.random.choice(SIZES)
        # Accepted after each that is refused: what a refusal leaves on the connection would spoil the next.
        accepts = (self.whole, self.two_steps, self.three_steps)
        refuses = (self.no_right, self.no_right_in_chunks, self.no_login, self.no_login_in_chunks, self.bad_token, self.other_digest,
                   self.no_such_upload, self.no_such_route, self.no_manifest)
        kinds = accepts if turn % 2 else refuses
        kind = kinds[turn // 2 % len(kinds)]
        body = self.random.randbytes(size)
        try:
            right, answer = kind(body)
        except requests.exceptions.RequestException as error:
            self.lost.append(f"{kind.__name__}, {size} bytes: {error!r}")
            return
        if answer.status_code not in right:
            self.wrong.append(f"{kind.__name__}, {size} bytes: {answer.status_code} {answer.text[:200]}")
        if answer.status_code == 201:
            self.accepted[digest_of(body)] = body
        else:
            self.refused.append((digest_of(body), size))

    def is_there(self, digest):
        answer = self.session.get(f"{self.url}/v2/team/kept/blobs/{digest}", auth=good)
        return answer.status_code == 200 and answer.content == self.accepted[digest]

    def work(self, turns):
        for turn in turns:
            self.push(turn)
        spoilt = [digest for digest in self.accepted if not self.is_there(digest)]
        spoilt += [digest for digest, size in self.refused if size > 1 and
                   self.session.head(f"{self.url}/v2/team/kept/blobs/{digest}", auth=good).status_code != 404]
        pool, = (self.adapter.poolmanager.pools[key] for key in self.adapter.poolmanager.pools.keys())
        return self, spoilt, pool.num_connections, pool.num_requests


def main():
    each = int(pushes) // WORKERS
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as executor:
        done = [executor.submit(Pusher(number, url).work, range(number * each, (number + 1) * each))
                for number, url in zip(range(WORKERS), itertools.cycle(urls))]
        results = [future.result() for future in done]
    accepted = sum(len(worker.accepted) for worker, *_ in results)
    refused = sum(len(worker.refused) for worker, *_ in results)
    lost = [line for worker, *_ in results for line in worker.lost]
    wrong = [line for worker, *_ in results for line in worker.wrong]
    spoilt = [digest for _, digests, *_ in results for digest in digests]
    print(*lost[:20], *wrong[:20], *spoilt[:20], sep="\n", file=sys.stderr)
    connections = sum(opened for _, _, opened, _ in results)
    asked = sum(requests for *_, requests in results)
    print(f"{asked} requests over {connections} connections", file=sys.stderr)
    print(f"{accepted} accepted, {refused} refused, {len(lost)} lost, {len(wrong)} wrong, {len(spoilt)} not as they should be")


main()
