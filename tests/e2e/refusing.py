"""A registry that has had enough of all who ask: 429 to everything but /v2/ itself. refusing.py PORT SECONDS says how long it wants to be
left alone, and writes what it was asked to standard output."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Refusal(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        if self.path == "/v2/":
            self.send_response(200)
        else:
            print(self.command, self.path, flush=True)
            self.send_response(429)
            self.send_header("Retry-After", sys.argv[2])
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = answer

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Refusal).serve_forever()
