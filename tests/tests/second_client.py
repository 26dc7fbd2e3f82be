#!/usr/bin/env python3
"""A second client, written from bus-schema/PROTOCOL.md alone, without libraries.

usage: second_client.py HOST:PORT TOKEN ROOT EXPORTER

It calls, streams items and bytes from the driver at the root of EXPORTER, which has the methods of
tests/tests/e2e/second_client.rs, checks what it gets, and ends with status 0 if all of it is right.
"""

import json
import os
import socket
import struct
import sys
import uuid

NAMESPACE = uuid.UUID("752c930c-66cf-59c8-b15b-4b79e52cd9f5")
CALL, REPLY, ASK, TOLD, CANCEL, PING, PONG = 1, 2, 3, 4, 5, 6, 7
OPEN, OPENED, DATA, ACK, RESET = 0x10, 0x11, 0x12, 0x13, 0x14
LEASE_NEWS = 0x32
CREDIT = 1 << 20


# --- MessagePack: what the protocol needs of it ----------------------------------------------

def pack(value):
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 0x80 or -0x20 <= value < 0:
            return struct.pack(">b", value)
        return b"\xcf" + struct.pack(">Q", value) if value > 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        return (bytes([0xA0 | len(raw)]) if len(raw) < 32 else b"\xdb" + struct.pack(">I", len(raw))) + raw
    if isinstance(value, bytes):
        return (bytes([0xC4, len(value)]) if len(value) < 256 else b"\xc6" + struct.pack(">I", len(value))) + value
    if isinstance(value, list):
        head = bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdd" + struct.pack(">I", len(value))
        return head + b"".join(map(pack, value))
    if isinstance(value, dict):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xdf" + struct.pack(">I", len(value))
        return head + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(value)


SIZED = {0xC4: ("B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin"), 0xD9: ("B", "str"), 0xDA: (">H", "str"),
         0xDB: (">I", "str"), 0xDC: (">H", "list"), 0xDD: (">I", "list"), 0xDE: (">H", "map"), 0xDF: (">I", "map")}
PLAIN = {0xCA: ">f", 0xCB: ">d", 0xCC: "B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
         0xD0: "b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}


def unpack(raw, at=0):
    """One value, and where the next begins."""
    head, at = raw[at], at + 1
    if head < 0x80:
        return head, at
    if head >= 0xE0:
        return head - 0x100, at
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], at
    if head in PLAIN:
        size = struct.calcsize(PLAIN[head])
        return struct.unpack_from(PLAIN[head], raw, at)[0], at + size
    if head in SIZED:
        form, kind = SIZED[head]
        count = struct.unpack_from(form, raw, at)[0]
        at += struct.calcsize(form)
    else:
        kind = {0x80: "map", 0x90: "list"}.get(head & 0xF0, "str")
        count = head & (0x1F if kind == "str" else 0x0F)
    if kind in ("bin", "str"):
        cut = raw[at:at + count]
        if len(cut) < count:
            raise EOFError
        return (bytes(cut) if kind == "bin" else cut.decode()), at + count
    values = []
    for _ in range(count * (2 if kind == "map" else 1)):
        value, at = unpack(raw, at)
        values.append(value)
    return (values if kind == "list" else dict(zip(values[::2], values[1::2]))), at


def message(kind, body):
    return bytes([1, kind]) + pack(body)


def read(raw, kind):
    assert raw[0] >= 1 and raw[1] == kind, raw[:2].hex()
    return unpack(raw, 2)[0]


# --- NATS ------------------------------------------------------------------------------------

class Nats:
    def __init__(self, server, token):
        host, port = server.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.input = self.socket.makefile("rb")
        self.input.readline()  # INFO
        hello = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True,
                 "lang": "python", "version": "0", "protocol": 1, "auth_token": token}
        self.send(b"CONNECT " + json.dumps(hello).encode() + b"\r\nPING\r\n")

    def send(self, raw):
        self.socket.sendall(raw)

    def subscribe(self, subject, sid):
        self.send(f"SUB {subject} {sid}\r\n".encode())

    def publish(self, subject, payload, reply=""):
        self.send(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def next(self):
        """The next message: subject, reply subject, headers as text, payload."""
        while True:
            line = self.input.readline().decode().split()
            if not line:
                raise EOFError("the broker closed the connection")
            if line[0] == "PING":
                self.send(b"PONG\r\n")
            elif line[0] == "-ERR":
                raise RuntimeError(" ".join(line))
            elif line[0] == "MSG":
                payload = self.input.read(int(line[-1]) + 2)[:-2]
                return line[1], line[3] if len(line) == 5 else None, "", payload
            elif line[0] == "HMSG":
                head, size = int(line[-2]), int(line[-1])
                raw = self.input.read(size + 2)[:-2]
                return line[1], line[3] if len(line) == 6 else None, raw[:head].decode(), raw[head:]


# --- jmp-bus ---------------------------------------------------------------------------------

class Client:
    def __init__(self, nats, root, name, exporter):
        self.nats, self.base, self.name, self.exporter = nats, f"{root}.v1", name, exporter
        self.session = os.urandom(8).hex()
        self.counter = 0
        self.streams = {}  # by stream id, and by call counter
        self.news = []  # of leases
        for sid, subject in enumerate([f"i.{name}.{self.session}.*", f"x.*.ctl.{name}.{self.session}.*",
                                       f"x.*.down.{name}.{self.session}.*",
                                       f"x.*.out.{name}.{self.session}.*.*.*",
                                       f"x.*.lease.{name}.{self.session}"]):
            nats.subscribe(f"{self.base}.{subject}", sid + 1)

    def subject(self, verb, driver="_", last="_"):
        return f"{self.base}.c.{self.name}.{verb}.{self.exporter}.{driver}.{last}"

    def say(self, subject, payload):
        """What is not answered, with the mark of this client."""
        self.nats.publish(subject, payload, f"{self.base}.i.{self.name}._")

    def driver(self, path=""):
        return str(uuid.uuid5(NAMESPACE, self.exporter + ("/" + path if path else "")))

    def ask(self, subject, payload, stored=False):
        """One request, one answer: headers and payload. `stored` is asked of JetStream."""
        inbox = f"{self.base}.i.{self.name}.{self.session}.{os.urandom(8).hex()}"
        self.nats.publish(subject, payload, inbox)
        while True:
            subject, reply, headers, payload = self.nats.next()
            if subject == inbox and (stored or "Nats-Stream" not in headers):
                return headers, payload
            self.dispatch(subject, reply, headers, payload)

    def dispatch(self, subject, reply, headers, payload):
        tokens = subject.split(".")
        if tokens[2] != "x" or not (reply or "").startswith(f"{self.base}.ix.{tokens[3]}."):
            return
        if tokens[4] == "lease":
            self.news.append(read(payload, LEASE_NEWS))
            return
        stream = self.streams.get(tokens[8] if tokens[4] == "out" else tokens[7])
        if stream is not None and tokens[3] == self.exporter:
            stream.hear(payload)

    def next_id(self):
        self.counter += 1
        return f"{self.session}-{self.counter}"

    def call(self, driver, method, args, form="typed", **more):
        body = {"id": self.next_id(), "done_below": self.counter, "args": pack(args), **more}
        if form != "typed":
            body["form"] = form
        headers, payload = self.ask(self.subject("call", driver, method), message(CALL, body))
        if "503" in headers.split("\r\n")[0]:
            return {"no-driver": None}, headers
        return read(payload, REPLY)["outcome"], headers

    def open(self, driver, method, args, credit=CREDIT, still=False):
        stream = Stream(self, credit=credit)
        stream.still = still
        body = {"id": self.next_id(), "stream": stream.id, "credit": credit, "done_below": self.counter,
                "args": pack(args)}
        self.streams[stream.id] = self.streams[str(self.counter)] = stream
        request = message(OPEN, body)
        opened = read(self.ask(self.subject("open", driver, method), request)[1], OPENED)
        if "open" in opened:
            stream.limit = opened["open"]["credit"]
            stream.item = opened["open"].get("item")
            repeat = message(OPEN, {**body, "attempt": 1, "age_ms": 1})
            again = read(self.ask(self.subject("open", driver, method), repeat)[1], OPENED)
            assert again == opened, "a repeat of an open gets the same answer"
            return stream
        raise RuntimeError(opened)


class Stream:
    def __init__(self, client, id=None, credit=CREDIT):
        self.client, self.id = client, id or client.session + os.urandom(8).hex()
        self.credit, self.granted, self.still = credit, credit, False
        self.ctl = client.subject("ctl", "_", self.id)
        self.received, self.end, self.reset = bytearray(), None, None
        self.limit, self.sent, self.acked, self.finished, self.item = 0, b"", 0, None, None
        self.chunk = min(16384, credit // 2)

    def hear(self, raw):
        {DATA: self.on_data, ACK: self.on_ack, RESET: self.on_reset}[raw[1]](read(raw, raw[1]))

    def on_data(self, data):
        assert data["at"] + len(data.get("data", b"")) <= self.granted, "more than was granted"
        if data["at"] > len(self.received):
            return self.ack(again=True)
        new = data.get("data", b"")[len(self.received) - data["at"]:]
        self.received += new
        if "end" in data:
            assert data["end"]["bytes"] == len(self.received)
            self.end = data["end"]
        self.ack()

    def on_ack(self, ack):
        self.limit, self.acked = max(self.limit, ack["limit"]), ack["received"]
        self.finished = "acknowledged" if ack.get("ended") else self.finished
        if ack.get("again"):
            self.publish(ack["received"])
        if ack.get("sent", 0) or ack.get("finished"):
            behind = ack.get("sent", 0) > len(self.received) or (ack.get("finished") and not self.end)
            self.ack(again=bool(behind))

    def on_reset(self, reset):
        self.reset = reset

    def ack(self, again=False):
        if self.still:
            return
        self.granted = max(self.granted, len(self.received) + self.credit)  # it never falls
        body = {"received": len(self.received), "limit": self.granted,
                "ended": self.end is not None, "again": again}
        if self.acked < len(self.sent):
            body["sent"] = len(self.sent)
        if self.finished == "sent":
            body["finished"] = True
        self.client.say(self.ctl, message(ACK, body))

    def publish(self, at):
        up = self.client.subject("up", "_", self.id)
        while at < len(self.sent):
            chunk = self.sent[at:at + self.chunk]
            self.wait(lambda: at + len(chunk) <= self.limit)
            if self.reset is not None:
                return
            self.client.say(up, message(DATA, {"at": at, "data": chunk}))
            at += len(chunk)
        if self.finished:
            self.client.say(up, message(DATA, {"at": at, "end": {"bytes": at}}))

    def write(self, raw):
        at, self.sent = len(self.sent), self.sent + raw
        self.publish(at)

    def finish(self):
        self.finished = "sent"
        self.publish(len(self.sent))

    def wait(self, done):
        while not done() and self.reset is None:
            self.client.dispatch(*self.client.nats.next())

    def items(self):
        """All items, and the end."""
        self.wait(lambda: self.end is not None)
        items, at = [], 0
        while at < len(self.received):
            framed, at = unpack(self.received, at)
            items.append(unpack(framed)[0])
        return items, self.end


# --- the test --------------------------------------------------------------------------------

def main(server, token, root, exporter):
    client = Client(Nats(server, token), root, "second", exporter)
    driver = client.driver()

    pong = read(client.ask(client.subject("ping"), message(PING, {}))[1], PONG)
    assert len(pong["incarnation"]) == 16 and pong["host"], pong

    outcome, _ = client.call(driver, "echo", ["hällo"])
    assert unpack(outcome["result"])[0] == "hällo", outcome

    outcome, _ = client.call(driver, "wait", ["250ms", "3"], form="words")
    assert json.loads(outcome["result"]) == "750ms", outcome
    outcome, _ = client.call(driver, "wait", [{"secs": 0, "nanos": 250_000_000}, 3])
    assert unpack(outcome["result"])[0] == {"secs": 0, "nanos": 750_000_000}, outcome
    outcome, _ = client.call(driver, "wait", [{"secs": 2, "nanos": 0}])  # the second has a default
    assert unpack(outcome["result"])[0] == {"secs": 2, "nanos": 0}, outcome

    outcome, _ = client.call(driver, "fail", ["no power"])
    assert outcome == {"fault": {"kind": "device", "text": "no power"}}, outcome

    outcome, headers = client.call(driver, "echo", [7])
    assert outcome["refused"]["code"] == "bad-arguments", outcome
    assert "Nats-Service-Error-Code: 400" in headers, headers
    outcome, headers = client.call(driver, "nothing", [])
    assert outcome["refused"]["code"] == "unknown-method" and "404" in headers, outcome
    headers, payload = client.ask(client.subject("shout", driver, "echo"), b"?")
    assert read(payload, REPLY)["outcome"]["refused"]["code"] == "unknown-verb", payload
    assert client.call(client.driver("nobody"), "echo", [""])[0] == {"no-driver": None}

    _, payload = client.ask(client.subject("call", driver, "echo"), b'{"args": ["by hand"]}')
    assert json.loads(payload) == {"result": "by hand"}, payload
    _, payload = client.ask(client.subject("call", driver, "fail"), b'{"args": ["x"]}')
    assert json.loads(payload)["error"]["may_have_acted"] is True, payload

    # A repeat is answered, not executed again; with other arguments it is refused.
    once = {"id": client.next_id(), "args": pack([])}
    subject = client.subject("call", driver, "count")
    first = client.ask(subject, message(CALL, once))[1]
    assert client.ask(subject, message(CALL, {**once, "attempt": 1, "age_ms": 5}))[1] == first
    other = message(CALL, {**once, "args": pack([1]), "attempt": 2, "age_ms": 9})
    assert read(client.ask(subject, other)[1], REPLY)["outcome"]["refused"]["code"] == "id-reused"
    told = read(client.ask(client.subject("ask"), message(ASK, {"ids": [once["id"]]}))[1], TOLD)
    assert told["calls"] == ["done"] and told["incarnation"] == pong["incarnation"], told
    forgotten = {"id": client.next_id(), "args": pack([]), "attempt": 1, "age_ms": 10**9}
    assert read(client.ask(subject, message(CALL, forgotten))[1], REPLY)["outcome"] == {"unknown": "forgotten"}

    stream = client.open(driver, "echo_generator", ["hello"])
    items, end = stream.items()
    assert stream.item == "text" and items == ["hello"] * 10, items
    assert end["items"] == 10 and "fault" not in end and "recorded" not in end, end

    stream = client.open(driver, "break_off", [])
    items, end = stream.items()
    assert items == [1, 2] and end["fault"]["kind"] == "io", (items, end)

    stream = client.open(driver, "part", [])
    sent = os.urandom(100_000)
    stream.write(sent)
    outcome, _ = client.call(driver, "echo", ["meanwhile"])  # a stream outlives done_below
    assert "result" in outcome, outcome
    stream.wait(lambda: len(stream.received) == len(sent))
    assert stream.received == sent and stream.end is None, (stream.reset, len(stream.received))
    stream.finish()  # half: the answer to it still comes
    stream.wait(lambda: stream.end is not None and stream.finished == "acknowledged")
    assert stream.received == sent + b"bye" and stream.reset is None, (stream.reset, stream.end)
    print("all is as PROTOCOL.md says")


if __name__ == "__main__":
    main(*sys.argv[1:])
