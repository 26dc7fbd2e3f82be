#!/usr/bin/env python3
"""The second client at the exporter's desk: versions, the examples byte by byte, the registry, the
service API, leases and the largest limits. See second_client.py.

usage: second_client_desk.py HOST:PORT TOKEN ROOT EXPORTER

EXPORTER is `bench`, and has four more drivers like the one at its root: d1 to d4.
"""

import hashlib
import json
import os
import pathlib
import re
import sys
from datetime import datetime

from second_client import (ACK, ASK, CALL, CANCEL, NAMESPACE, OPEN, OPENED, PING, PONG, REPLY, RESET, TOLD, Client, Nats,
                           Stream, message, pack, read, unpack)

LEASE, LEASED, BOARD = 0x30, 0x31, 0x35
PRESENCE, TREE, INTERFACE = 0x20, 0x21, 0x22


def outcome_of(client, driver, raw, method="echo"):
    return read(client.ask(client.subject("call", driver, method), raw)[1], REPLY)["outcome"]


def versions_are_told_apart(client, driver):
    def call(version, more):
        return bytes([version, CALL]) + pack({"id": client.next_id(), "args": pack(["hi"]), **more})

    hi = {"result": pack("hi")}
    assert outcome_of(client, driver, call(1, {})) == hi
    assert outcome_of(client, driver, call(1, {"of_tomorrow": [1, {"a": None}]})) == hi, "unknown keys are ignored"
    assert outcome_of(client, driver, call(2, {"of_tomorrow": True})) == hi, "a newer one is read as if it were ours"
    for version, more, code in [(0, {}, "wrong-version"), (2, {"form": "shouted"}, "wrong-version"),
                                (255, {"id": 5}, "wrong-version"), (1, {"form": "shouted"}, "malformed"),
                                (1, {"deadline_ms": "soon"}, "malformed"), (1, {"deadline_ms": 0}, "expired")]:
        outcome = outcome_of(client, driver, call(version, more))
        assert outcome["refused"]["code"] == code, (version, more, outcome)
    for raw in [b"\x01", b"\x01\x7f\x80", b"\x01\x01", b"\x01\x01\xc1", call(1, {}) + b"\x00", b"\xff" * 40]:
        assert outcome_of(client, driver, raw)["refused"]["code"] in ("malformed", "wrong-version"), raw[:8]


# --- the examples of section 13 --------------------------------------------------------------

def examples():
    document = pathlib.Path(__file__).parents[2] / "bus-schema" / "PROTOCOL.md"
    section = document.read_text().split("## 13. ")[1].split("\n## ")[0]
    for block in re.findall(r"```hex\n(.*?)```", section, re.S):
        yield bytes.fromhex("".join(line.split("|")[0].replace(" ", "") for line in block.splitlines()))


def the_examples_are_what_is_said(server, token, root, exporter, incarnation):
    nats = Nats(server, token)
    alice = Client(nats, root, "alice", exporter)
    alice.session = "00000000000000ab"
    base, driver = f"{root}.v1", alice.driver()
    assert driver == "46e2614d-07d8-525a-b071-50c87f710bad"
    stream = "00000000000000ab0000000000000001"
    nats.subscribe(f"{base}.i.alice.{alice.session}.*", 20)
    nats.subscribe(f"{base}.x.*.*.alice.{alice.session}.*", 21)
    call, reply, open_it, opened, hi, end, acked, hi_back, end_back, ack = examples()
    opened = opened.replace(b"000000000000001f", incarnation.encode())

    inbox = f"{base}.i.alice.{alice.session}.0123456789abcdef"
    nats.publish(alice.subject("call", driver, "echo"), call, inbox)
    subject, _, _, payload = nats.next()
    assert (subject, payload) == (inbox, reply), payload.hex(" ")

    inbox = f"{base}.i.alice.{alice.session}.0123456789abcdf0"
    nats.publish(alice.subject("open", driver, "reflect"), open_it, inbox)
    subject, _, _, payload = nats.next()
    assert (subject, payload) == (inbox, opened), payload.hex(" ")
    up, ctl, down = (f"{base}.{way}.{stream}" for way in
                     (f"c.alice.up.{exporter}._", f"x.{exporter}.ctl.alice.{alice.session}",
                      f"x.{exporter}.down.alice.{alice.session}"))
    alice.say(up, hi)
    alice.say(up, end)
    wanted = {(ctl, acked), (down, hi_back), (down, end_back)}
    while wanted:
        subject, _, _, payload = nats.next()
        if subject == ctl and payload[3:].startswith(acked[3:]):
            payload = acked  # its own bytes went first, and it says so behind that
        # It may acknowledge what it has so far, too.
        assert (subject, payload) in wanted or subject == ctl and payload[1] == ACK, (subject, payload.hex(" "))
        wanted.discard((subject, payload))
    alice.say(f"{base}.c.alice.ctl.{exporter}._.{stream}", ack)


# --- the registry ----------------------------------------------------------------------------

def digest(raw):
    sha1 = bytearray(hashlib.sha1(NAMESPACE.bytes + raw).digest()[:16])
    sha1[6], sha1[8] = sha1[6] & 0x0F | 0x50, sha1[8] & 0x3F | 0x80
    return bytes(sha1).hex()


def record(client, root, subject):
    headers, payload = client.ask(f"$JS.API.DIRECT.GET.{root}_registry.{subject}", b"", stored=True)
    assert "404" not in headers.split("\r\n")[0], (subject, headers)
    return payload


def interfaces_are_what_their_digests_say(client, root, exporter, incarnation):
    presence = read(record(client, root, f"{client.base}.x.{exporter}.presence"), PRESENCE)
    assert presence["exporter"] == exporter and presence["incarnation"] == incarnation and presence["state"] == "up"
    drivers, part, parts = [], 0, 1
    while part < parts:
        tree = read(record(client, root, f"{client.base}.x.{exporter}.tree.{part}"), TREE)
        assert tree["tree"] == presence["tree"], "a part of another tree is an old one"
        drivers, part, parts = drivers + tree["drivers"], part + 1, tree["parts"]
    assert presence["drivers"] == len(drivers) == 5, presence
    assert [d["id"] for d in drivers] == [client.driver(d["path"]) for d in drivers], "an address is a UUID"
    for name, said in drivers[0]["interfaces"]:
        raw = record(client, root, f"{client.base}.x.{exporter}.interface.{said}")
        interface = read(raw, INTERFACE)
        assert digest(raw) == said and interface["name"] == name, (name, said)
        methods = {method["name"]: method for method in interface["methods"]}
        assert methods["echo"]["kind"] == "call" and methods["echo"]["result"] == "text", methods["echo"]
        assert methods["flood"]["kind"] == "streaming-call" and methods["flood"]["result"] == "bytes"
        assert methods["reflect"]["kind"] == "stream" and methods["hold"]["concurrent"] is True
        wait = methods["wait"]["params"]
        assert [p["name"] for p in wait] == ["gap", "times"] and wait[0]["ty"] == "duration", wait
        assert wait[1]["optional"] is True and wait[1]["default"] == 1, wait


# --- the service API (ADR-32) ----------------------------------------------------------------

SEMVER = re.compile(r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")


def whole(value):
    assert type(value) is int and 0 <= value < 1 << 63, value


def services_answer_as_adr_32_says(client, root, exporter, incarnation, driver):
    client.call(driver, "fail", ["on purpose"])
    ours = f"jmp-exporter.{incarnation}"

    def answers(verb, name):
        """The answer of our exporter; those of others may come before it."""
        inbox = f"{client.base}.i.{client.name}.{client.session}.{os.urandom(8).hex()}"
        client.nats.publish(f"$SRV.{verb}{name}", b"", inbox)
        while True:
            subject, reply, headers, payload = client.nats.next()
            if subject != inbox:
                client.dispatch(subject, reply, headers, payload)
            elif json.loads(payload)["id"] == incarnation:
                return json.loads(payload)

    for verb in ["PING", "INFO", "STATS"]:
        all_alike = [answers(verb, name) for name in ["", ".jmp-exporter", f".{ours}"]]
        for answer in all_alike:
            assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response", answer
            assert answer["name"] == "jmp-exporter" and answer["id"] == incarnation, answer
            assert SEMVER.match(answer["version"]), answer
            metadata = answer["metadata"]
            assert all(type(v) is str for v in metadata.values()), metadata
            assert metadata["exporter"] == exporter and metadata["root"] == root, metadata
        if verb == "PING":
            assert set(answer) == {"type", "name", "id", "version", "metadata"}, answer
            continue
        assert [e["name"] for e in answer["endpoints"]] == ["call", "open"], answer
        for endpoint in answer["endpoints"]:
            assert endpoint["subject"] == f"{client.base}.c.*.{endpoint['name']}.{exporter}.*.*", endpoint
            assert endpoint["queue_group"] == "", endpoint
        if verb == "INFO":
            assert type(answer["description"]) is str
            assert all(e["metadata"] == {} for e in answer["endpoints"]), answer
        else:
            datetime.fromisoformat(answer["started"].replace("Z", "+00:00")[:26] + "+00:00")
            assert answer["started"].endswith("Z")
            for endpoint in answer["endpoints"]:
                for figure in ["num_requests", "num_errors", "processing_time", "average_processing_time"]:
                    whole(endpoint[figure])
                assert type(endpoint["last_error"]) is str
                average = endpoint["processing_time"] // max(endpoint["num_requests"], 1)
                assert endpoint["average_processing_time"] == average, endpoint
            call = answer["endpoints"][0]
            assert call["num_requests"] > 0 and call["num_errors"] > 0 and call["last_error"] == "device", call


# --- leases ----------------------------------------------------------------------------------

def leases_are_granted_refused_and_passed_on(server, token, root, exporter, client, driver):
    other = Client(Nats(server, token), root, "third", exporter)

    def lease(who, do, ticket=None, kind=LEASED, **more):
        body = {"do": do, **({"ticket": ticket} if ticket else {}), **more}
        return read(who.ask(who.subject("lease"), message(LEASE, body))[1], kind)

    def ticket(who):
        return who.session + os.urandom(8).hex()

    assert client.call(driver, "echo", ["x"])[0] == {"result": pack("x")}, "no lease is required here"
    mine = ticket(client)
    held = lease(client, {"acquire": {"duration_ms": 60_000, "confirm": True}}, mine)["held"]
    assert held["holder"] == client.name and 0 < held["left_ms"] <= 60_000 and held["epoch"] > 0, held
    again = lease(client, {"acquire": {"duration_ms": 60_000, "confirm": True}}, mine)["held"]
    assert again["epoch"] == held["epoch"], "a known ticket is no second request"

    outcome, headers = other.call(driver, "echo", ["x"])
    refused = outcome["refused"]
    assert refused["code"] == "not-leased" and refused["holder"] == client.name and "423" in headers, outcome
    assert client.call(driver, "echo", ["x"])[0] == {"result": pack("x")}
    assert client.call(driver, "echo", ["x"], epoch=held["epoch"])[0] == {"result": pack("x")}
    outcome, _ = client.call(driver, "echo", ["x"], epoch=held["epoch"] - 1)
    assert outcome["refused"]["code"] == "not-leased", outcome
    busy = lease(other, {"acquire": {"confirm": True}}, ticket(other))["refused"]
    assert busy["code"] == "busy" and busy["holder"] == client.name and busy["left_ms"] > 0, busy
    theirs = ticket(other)
    waiting = lease(other, {"acquire": {"wait_ms": 60_000}}, theirs)["waiting"]
    assert waiting["before"] == 0 and waiting["holder"] == client.name, waiting
    board = lease(client, "status", kind=BOARD)
    [unit] = board["units"]
    assert unit["state"] == "held" and unit["lease"]["holder"] == client.name, unit
    assert [w["client"] for w in unit["queue"]] == [other.name] and board["incarnation"], unit

    ended = lease(client, "release", mine)["ended"]
    assert ended["why"] == "released", ended
    while not other.news:
        other.dispatch(*other.nats.next())
    news = other.news[-1]
    assert news["ticket"] == theirs and "offered" in news["now"], news
    assert "offered" in lease(other, {"alive": {"heard": news["number"]}}, theirs)
    epoch = lease(other, "confirm", theirs)["held"]["epoch"]
    assert epoch > held["epoch"], "epochs only grow"
    outcome, _ = client.call(driver, "echo", ["x"], epoch=held["epoch"])
    assert outcome["refused"]["code"] == "not-leased", outcome
    assert "held" in lease(other, {"renew": {"duration_ms": 1_000}}, theirs)
    assert lease(client, "release", theirs)["ended"]["why"] == "unknown", "only its holder knows of it"
    assert "held" in lease(other, {"alive": {}}, theirs)
    assert lease(other, {"decline": {}}, ticket(other))["ended"]["why"] == "unknown"
    lease(other, "release", theirs)
    outcome = read(client.ask(client.subject("lease"), b"\x01\x30\xc1")[1], LEASED)
    assert outcome["refused"]["code"] == "malformed", "damaged, and told so"


# --- the largest limits ----------------------------------------------------------------------

class Flood:
    """Requests that are not waited for one by one."""

    def __init__(self, client):
        self.client, self.answers, self.ids = client, {}, []

    def send(self, verb, driver, method, body):
        inbox = f"{self.client.base}.i.{self.client.name}.{self.client.session}.{os.urandom(8).hex()}"
        self.ids.append(body["id"])
        self.client.nats.publish(self.client.subject(verb, driver, method), body and message(
            CALL if verb == "call" else OPEN, body), inbox)
        return inbox

    def wait(self, inboxes, kind):
        while not all(inbox in self.answers for inbox in inboxes):
            subject, reply, headers, payload = self.client.nats.next()
            if ".i." in subject:
                self.answers[subject] = payload
            else:
                self.client.dispatch(subject, reply, headers, payload)
        return [read(self.answers[inbox], kind) for inbox in inboxes]


def calls_over_the_limits_are_refused(client, drivers):
    flood, held = Flood(client), []
    for number, driver in enumerate(drivers[:4]):
        held += [flood.send("call", driver, "hold", {"id": client.next_id()}) for _ in range(1024)]
        if number == 0:
            over = flood.send("call", driver, "hold", {"id": client.next_id()})
            [refused] = flood.wait([over], REPLY)
            refused = refused["outcome"]["refused"]
            assert refused["code"] == "busy" and refused["limit"] == 1024, refused
    told = {}
    for at in range(0, len(flood.ids), 1024):  # no order between drivers: they have to be in first
        some = flood.ids[at:at + 1024]
        while sum("running" in call for call in told.get(at, [])) < len(some) - (at == 1024):
            told[at] = read(client.ask(client.subject("ask"), message(ASK, {"ids": some}))[1], TOLD)["calls"]
    over = flood.send("call", drivers[4], "hold", {"id": client.next_id()})
    [refused] = flood.wait([over], REPLY)
    assert refused["outcome"]["refused"]["code"] == "busy", refused
    assert refused["outcome"]["refused"]["limit"] == 4096, refused
    told = read(client.ask(client.subject("ask"), message(ASK, {"ids": flood.ids[:1025]}))[1], TOLD)
    assert len(told["calls"]) == 1024 and all("running" in call for call in told["calls"]), "at most 1024 are read"
    for at in range(0, len(flood.ids), 1024):
        cancel = message(CANCEL, {"ids": flood.ids[at:at + 1024]})
        inbox = f"{client.base}.i.{client.name}.{client.session}.{os.urandom(8).hex()}"
        client.nats.publish(client.subject("cancel"), cancel, inbox)
    outcomes = [reply["outcome"] for reply in flood.wait(held, REPLY)]
    assert all("result" in outcome or outcome["fault"]["kind"] == "cancelled" for outcome in outcomes)
    assert client.call(drivers[0], "echo", ["after"])[0] == {"result": pack("after")}


def streams_over_the_limits_are_refused(client, drivers, method, most):
    """Opens until it is refused: at `most`, or earlier for want of credit, and never in silence."""
    flood, streams, refused = Flood(client), [], []
    while not refused:
        opening = []
        for number in range(256):
            stream = Stream(client)
            streams.append(stream)
            opening.append(flood.send("open", drivers[number % len(drivers)], method, {
                "id": client.next_id(), "stream": stream.id, "credit": 16384, "done_below": 0}))
        refused = [o["refused"] for o in flood.wait(opening, OPENED) if "refused" in o]
        assert len(streams) <= most + 256, "nothing is refused"
    assert all(refusal["code"] == "busy" for refusal in refused), refused[0]
    for stream in streams:
        client.say(stream.ctl, message(RESET, {"code": "cancelled"}))
    while True:  # until they have all gone
        stream = Stream(client)
        body = {"id": client.next_id(), "stream": stream.id, "credit": 16384}
        opened = read(client.ask(client.subject("open", drivers[0], method), message(OPEN, body))[1], OPENED)
        if "open" in opened:
            break
    client.say(stream.ctl, message(RESET, {"code": "cancelled"}))
    return len(streams) - len(refused), refused[0]


def main(server, token, root, exporter):
    client = Client(Nats(server, token), root, "second", exporter)
    driver = client.driver()
    incarnation = read(client.ask(client.subject("ping"), message(PING, {}))[1], PONG)["incarnation"]
    versions_are_told_apart(client, driver)
    the_examples_are_what_is_said(server, token, root, exporter, incarnation)
    interfaces_are_what_their_digests_say(client, root, exporter, incarnation)
    services_answer_as_adr_32_says(client, root, exporter, incarnation, driver)
    leases_are_granted_refused_and_passed_on(server, token, root, exporter, client, driver)
    drivers = [driver] + [client.driver(f"d{n}") for n in range(1, 5)]
    calls_over_the_limits_are_refused(client, drivers)
    opened, refusal = streams_over_the_limits_are_refused(client, drivers, "silence", 4096)
    # One that has just ended counts for the while in which it answers late acks.
    assert 4090 <= opened <= refusal["limit"] == 4096, (opened, refusal)
    opened, refusal = streams_over_the_limits_are_refused(client, drivers, "reflect", 4096)
    assert opened >= 200, (opened, refusal)
    print("all is as PROTOCOL.md says")


if __name__ == "__main__":
    main(*sys.argv[1:])
