"""A local server that speaks the Messages and Batches protocol, with faults on demand.

It answers every program by looking for the word `eval(`: a judge that is right by construction, so that tests can tell
a lost or swapped verdict from a good one. `faults` is a list of what happens to the next calls, in order, before it
behaves.
"""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JudgeServer(ThreadingHTTPServer):
    """The server; `seen` keeps every body, `faults` what is still to go wrong."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.faults, self.batches, self.lock = [], [], {}, threading.Lock()
        self.in_flight = self.most_in_flight = self.polls_until_ended = 0
        self.delay, self.goal, self.report = 0.0, "none", {}
        self.batch_faults = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


def answer(body, goal="none", **changes):
    """Return a reply message to a body."""
    program = body["messages"][0]["content"]
    if program.startswith("[notes"):
        changes["report"] = {"goal": goal, "confidence": 0.8}
    bad = "eval(" in program
    line = next((int(m[1]) for m in re.finditer(r"^ *(\d+)\|(.*)$", program, re.MULTILINE) if "eval(" in m[2]), None)
    report = {"vulnerable": bad, "cwe": "CWE-94" if bad else None, "line": line, "confidence": 0.9}
    given = changes.pop("report", {})
    report = given if "goal" in given else report | given
    if "tools" in body and "answer" in body["tools"][0]["input_schema"]["properties"]:
        report = {"answer": "Yes." if bad else "no"}
    block = {"type": "tool_use", "id": "t1", "name": "report", "input": report}
    message = {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [block],
        "stop_reason": "tool_use",
    }
    return message | {"stop_sequence": None, "usage": {"input_tokens": 100, "output_tokens": 20}} | changes


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _send(self, status, value, headers=(), raw=None):
        data = raw if raw is not None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status, headers=()):
        self._send(status, {"type": "error", "error": {"type": "x", "message": "injected"}}, headers)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server = self.server
        if self.path.startswith("/v1/messages/batches"):
            self._new_batch(body)
            return
        with server.lock:
            server.seen.append(body)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
            fault = server.faults.pop(0) if server.faults else None
        try:
            time.sleep(server.delay)
            self._reply(body, fault)
        finally:
            with server.lock:
                server.in_flight -= 1

    def _reply(self, body, fault):
        server = self.server
        if fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault == "slow":
            time.sleep(1.5)
            self._send(200, answer(body))
        elif fault == "malformed":
            self._send(200, None, raw=b'{"id": "m1", "type": "mess')
        elif fault in (429, 529, 500):
            self._error(fault, [("retry-after", "0.1")] if fault == 429 else [])
        elif fault in (401, 404):
            self._error(fault)
        elif fault == "refusal":
            self._send(200, answer(body, stop_reason="refusal", content=[]))
        elif fault == "cut":
            self._send(200, answer(body, stop_reason="max_tokens"))
        elif fault == "prose":
            self._send(200, answer(body, stop_reason="end_turn", content=[{"type": "text", "text": "It is secure."}]))
        elif fault == "misfit":
            self._send(200, answer(body, report={"confidence": 7, "cwe": "ninety-four"}))
        else:
            self._send(200, answer(body, server.goal, **({"report": server.report} if server.report else {})))

    def _batch(self, batch_id):
        state = self.server.batches[batch_id]
        ended = state["polls"] >= self.server.polls_until_ended
        counts = {
            "processing": 0 if ended else len(state["requests"]),
            "succeeded": len(state["requests"]) if ended else 0,
        }
        return {
            "id": batch_id, "type": "message_batch", "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts | {"errored": 0, "canceled": 0, "expired": 0},
            "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z",
            "ended_at": "2026-01-01T01:00:00Z" if ended else None, "archived_at": None, "cancel_initiated_at": None,
            "results_url": f"{self.server.address}/v1/messages/batches/{batch_id}/results" if ended else None,
        }  # fmt: skip

    def _new_batch(self, body):
        batch_id = f"batch_{len(self.server.batches)}"
        self.server.batches[batch_id] = {"requests": body["requests"], "polls": 0}
        self._send(200, self._batch(batch_id))

    def do_GET(self):
        found = re.search(r"batches/(batch_\d+)(/results)?", self.path)
        if not found or found[1] not in self.server.batches:
            self._error(404)
            return
        state = self.server.batches[found[1]]
        if not found[2]:
            state["polls"] += 1
            self._send(200, self._batch(found[1]))
            return
        rows = []
        for index, request in enumerate(state["requests"]):
            kind = self.server.batch_faults.get(index)
            result = (
                {"type": kind}
                if kind in ("expired", "canceled")
                else {"type": "succeeded", "message": answer(request["params"])}
            )
            if kind == "errored":
                result = {
                    "type": "errored",
                    "error": {"type": "error", "error": {"type": "api_error", "message": "x"}, "request_id": None},
                }
            rows.append(json.dumps({"custom_id": request["custom_id"], "result": result}))
        self._send(200, None, raw=("\n".join(reversed(rows)) + "\n").encode())  # never in the order asked
