"""oras-py: oras_py.py COMMAND REFERENCE USER PASSWORD [ARGUMENT…], with the gateway's CA in SSL_CERT_FILE."""

import os
import sys
import time

from oras.client import OrasClient

command, reference, user, password, *arguments = sys.argv[1:]
# It tries five times over two minutes whatever was said, a wrong password too: without the pauses here.
time.sleep = lambda _: None
# The token of its HEAD is all that it shows with its DELETE, and that one is for pulling.
backend = "basic" if command == "delete" else "token"
client = OrasClient(tls_verify=os.environ["SSL_CERT_FILE"], auth_backend=backend)
client.auth.set_basic_auth(user, password)

if command == "push":
    answer = client.push(target=reference, files=arguments, disable_path_validation=True)
    print(answer.headers["Docker-Content-Digest"])
elif command == "push-chunked":
    answer = client.push(target=reference, files=arguments, disable_path_validation=True, do_chunked=True, chunk_size=1_000_000)
    print(answer.headers["Docker-Content-Digest"])
elif command == "pull":
    print(*client.pull(target=reference, outdir=arguments[0]), sep="\n")
elif command == "tags":
    print(*sorted(client.get_tags(reference)), sep="\n")
elif command == "delete":
    print(*client.delete_tags(reference, arguments))
else:
    sys.exit(f"no such command: {command}")
