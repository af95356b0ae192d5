"""Servers for the tests of the visdom display: one that we can spoil, and the real one."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

# The real server's application, without the page's scripts: nothing is downloaded.
REAL_SERVER = """
import logging, sys
import tornado.ioloop
from visdom.server.app import Application
logging.disable(logging.CRITICAL)
port = int(sys.argv[1])
Application(port=port, env_path=sys.argv[2]).listen(port, address="127.0.0.1")
print("ready", flush=True)
tornado.ioloop.IOLoop.current().start()
"""


class FakeServer:
    """Does with windows what visdom's server does, and misbehaves on demand.

    Attributes:
        windows: what it shows, by environment and window.
        mode: "alive", "hung", "error" (HTTP 500), "error in /events" (there alone), "other" (a
            server that is not visdom's) or the address that it redirects to.
        requests: paths asked for, in order.
    """

    def __init__(self, port=0):
        self.windows, self.mode, self.requests = {}, "alive", []
        self.closed = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one packet

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append(self.path)
                while outer.mode == "hung" and not outer.closed.is_set():
                    time.sleep(0.01)
                answer, status = "<html>hello</html>", 200
                if outer.mode.startswith("http:"):
                    status = 307
                elif outer.mode in ("error", f"error in {self.path}"):
                    status = 500
                elif outer.mode != "other":
                    answer, status = outer.answer(unquote(self.path), json.loads(body))
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", f"{outer.mode}{self.path}")
                self.send_header("Content-Length", str(len(answer.encode())))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):  # clients that hang up
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=[0.01], daemon=True).start()

    def answer(self, path, message):
        env = self.windows.get(message["eid"])
        if path.startswith("/env/"):
            if path != f"/env/{message['eid']}":
                return "", 404
            self.windows.setdefault(message["eid"], {})
        elif path == "/events":
            env[message["win"]] = {**message, "content_id": time.monotonic_ns()}
            return message["win"], 200
        elif path == "/win_hash":
            window = env.get(message["win"])
            text = json.dumps(window, sort_keys=True)
            return hashlib.md5(text.encode()).hexdigest() if window else "false", 200
        elif path == "/close":
            assert message["win"] is None
            env.clear()
        else:
            return "", 404
        return "", 200

    def stop(self):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()


class RealServer:
    """The real visdom server in a process of its own."""

    def __init__(self, port, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", REAL_SERVER, str(port), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = port
        assert self.process.stdout.readline() == "ready\n"

    def hang(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
