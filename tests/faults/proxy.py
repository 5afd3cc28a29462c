"""A small proxy before a real MLflow server that can be away, slow, or answer with an error."""

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class Proxy:
    """`mode`: "pass", "away" (the connection is cut), "slow" (each answer takes `seconds`), or a status code.

    `failing` counts down calls until the proxy fails: a fault in the middle of what a client writes.
    """

    def __init__(self, target):
        self.target, self.mode, self.seconds, self.calls, self.failing = target, "pass", 10.0, 0, None
        self.lock, self.left, self.victim, self.answered, self.killing = threading.Lock(), 0, None, False, False
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self):
                proxy.calls += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.failing is not None:
                    proxy.failing -= 1
                    if proxy.failing < 0:
                        proxy.mode = 500
                if proxy.mode == "away":
                    return self.connection.close()
                if isinstance(proxy.mode, int):
                    self.send_response(proxy.mode)
                    self.send_header("Retry-After", "3600")
                    self.send_header("Content-Length", "0")
                    return self.end_headers()
                if proxy.mode == "slow":
                    time.sleep(proxy.seconds)
                kill = proxy.countdown()
                if not kill and proxy.killing:  # how far the victim gets does not depend on the load
                    return self.connection.close()
                if kill and not proxy.answered:
                    kill()
                    proxy.killing = False
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
                try:
                    found = requests.request(
                        self.command, proxy.target + self.path, data=body, headers=headers, timeout=60
                    )
                except requests.RequestException:
                    return self.connection.close()
                if kill and proxy.answered:
                    kill()
                    proxy.killing = False
                    return self.connection.close()
                with suppress(ConnectionError):  # the client was killed
                    self.send_response(found.status_code)
                    self.send_header("Content-Type", found.headers.get("Content-Type", "application/json"))
                    self.send_header("Content-Length", str(len(found.content)))
                    self.end_headers()
                    self.wfile.write(found.content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def kill(self, calls, victim, *, answered):
        """Call `victim` at a call from now on, before it reaches the server, or after the server has answered it.

        Calls that come before the victim is dead are cut off.
        """
        with self.lock:
            self.left, self.victim, self.answered = calls, victim, answered

    def countdown(self):
        """Return what this call kills, if anything."""
        with self.lock:
            self.left -= 1
            self.killing = self.killing or self.left == 0
            return self.victim if self.left == 0 else None

    def close(self):
        self.server.shutdown()
        self.server.server_close()
