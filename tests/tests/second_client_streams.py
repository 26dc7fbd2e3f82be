#!/usr/bin/env python3
"""The second client's streams: credit, half-close, parts, records. See second_client.py.

usage: second_client_streams.py HOST:PORT TOKEN ROOT EXPORTER
"""

import json
import os
import sys

from second_client import (ACK, CALL, DATA, OPEN, OPENED, REPLY, RESET, Client, Nats, Stream, message, pack, read,
                           unpack)


def credit_is_kept_and_goes_on(client, driver):
    """A writer stops at what was granted, and goes on when more is."""
    stream = client.open(driver, "pour", [], credit=16384, still=True)
    stream.wait(lambda: len(stream.received) == 16384)
    outcome, _ = client.call(driver, "echo", ["beside it"])
    assert "result" in outcome
    assert len(stream.received) == 16384, "nothing comes without credit"
    stream.still = False
    stream.ack()
    stream.wait(lambda: len(stream.received) > 500_000)
    client.say(stream.ctl, message(RESET, {"code": "cancelled", "text": "enough"}))
    outcome, _ = client.call(driver, "echo", ["after it"])
    assert "result" in outcome


def both_halves_close_by_themselves(client, driver):
    stream = client.open(driver, "reflect", [])
    sent = os.urandom(3_000_000)  # more than any first credit: both sides have to go on granting
    stream.write(sent)
    stream.finish()
    stream.wait(lambda: stream.end is not None and stream.finished == "acknowledged")
    assert stream.received == sent and stream.end == {"bytes": len(sent)}, (stream.reset, len(stream.received))
    # It has ended: what is said about it now is about no stream, after a while of late acks.
    stranger = Stream(client)
    client.streams[stranger.id] = stranger
    stranger.ack()
    stranger.wait(lambda: False)
    assert stranger.reset["code"] == "no-stream", stranger.reset


def a_failed_stream_is_reset(client, driver):
    stream = client.open(driver, "tear", [])
    stream.wait(lambda: stream.end is not None)
    assert stream.end is None and stream.reset["code"] == "fault" and "torn" in stream.reset["text"], stream.reset


def lies_are_reset(client, driver):
    past_the_limit, no_message = {"at": 0, "data": b"x" * 600_000}, b"\x01\x12\x81\xa2at"
    for verb, lie in [
        ("up", message(DATA, past_the_limit)),
        ("up", message(DATA, {"at": 1 << 40, "data": b"x"})),
        ("up", message(DATA, {"at": 0, "end": {"bytes": 7}})),
        ("up", no_message),
        ("ctl", message(ACK, {"received": 99, "limit": 1 << 20})),  # of what was never sent
        ("ctl", b"\x01\x13\x80"),
    ]:
        stream = client.open(driver, "reflect", [])
        client.say(client.subject(verb, "_", stream.id), lie)
        stream.wait(lambda: False)
        assert stream.reset["code"] == "protocol", (verb, lie[:40], stream.reset)


def payloads_go_in_parts(client, driver):
    text = "0123456789abcdef" * (3 << 16)  # 3 MiB
    args = pack([text])
    given = Stream(client)
    given.limit = 0  # nothing until the receiver's first ack
    client.streams[given.id] = given
    body = {"id": client.next_id(), "done_below": client.counter, "parts": {"stream": given.id, "bytes": len(args)}}
    inbox = f"{client.base}.i.{client.name}.{client.session}.{os.urandom(8).hex()}"
    client.nats.publish(client.subject("call", driver, "echo"), message(CALL, body), inbox)
    given.write(args)
    given.finish()
    answer = []

    def dispatch(subject, reply, headers, payload):
        answer.append(payload) if subject == inbox else client.dispatch(subject, reply, headers, payload)

    while not answer:
        dispatch(*client.nats.next())
    parts = read(answer[0], REPLY)["outcome"]["parts"]
    assert parts["stream"].startswith(client.session), parts
    taken = Stream(client, parts["stream"])
    client.streams[taken.id] = taken
    taken.ack()  # and now it comes
    taken.wait(lambda: taken.end is not None)
    assert len(taken.received) == parts["bytes"] and unpack(taken.received)[0] == text

    too_large = {"id": client.next_id(), "parts": {"stream": Stream(client).id, "bytes": (64 << 20) + 1}}
    _, payload = client.ask(client.subject("call", driver, "echo"), message(CALL, too_large))
    refused = read(payload, REPLY)["outcome"]["refused"]
    assert refused["code"] == "too-large" and refused["limit"] == 64 << 20, refused


def records(client, root, counter):
    """The items of a call of this client's, read back by literal subject, and its record's end."""
    get = f"$JS.API.DIRECT.GET.{root}_out."
    first = f"{client.base}.x.*.out.{client.name}.{client.session}.*.{counter}.0"
    headers, payload = client.ask(get + first, b"", stored=True)
    subject = next(line.split(": ")[1] for line in headers.split("\r\n") if line.startswith("Nats-Subject"))
    begin, received, number = read(payload, DATA)["begin"], b"", 0
    while True:
        data = read(payload, DATA)
        assert data["at"] == len(received), "order is the record's number"
        received += data.get("data", b"")
        if "end" in data:
            break
        number += 1
        headers, payload = client.ask(get + subject[:-1] + str(number), b"", stored=True)
        assert "404" not in headers.split("\r\n")[0], headers
    assert data["end"]["bytes"] == len(received)
    items, at = [], 0
    while at < len(received):
        framed, at = unpack(received, at)
        items.append(unpack(framed)[0])
    return begin, items, data["end"]


def a_streaming_call_is_recorded_and_replayed(client, root, driver, exporter):
    stream = client.open(driver, "echo_generator", ["again"])
    counter = client.counter
    items, end = stream.items()
    begin, replayed, recorded = records(client, root, counter)
    assert items == replayed == ["again"] * 10 and recorded == end, (replayed, end, recorded)
    assert begin["address"] == exporter and begin["method"] == "echo_generator" and begin["item"] == "text", begin
    missing = f"{client.base}.x.*.out.{client.name}.{client.session}.*.{counter + 1000}.0"
    headers, _ = client.ask(f"$JS.API.DIRECT.GET.{root}_out.{missing}", b"", stored=True)
    assert "404" in headers.split("\r\n")[0], headers

    # Detached: it goes on when nobody takes the items, and the record has all of them.
    detached = Stream(client)
    client.streams[detached.id] = detached
    body = {"id": client.next_id(), "stream": detached.id, "credit": 16384, "args": pack([1000, 2000]),
            "detached": True}
    opened = read(client.ask(client.subject("open", driver, "flood"), message(OPEN, body))[1], OPENED)
    assert opened["open"]["item"] == "bytes", opened
    counter = client.counter
    client.say(detached.ctl, message(RESET, {"code": "cancelled"}))
    del client.streams[detached.id]
    ask = message(3, {"ids": [body["id"]]})
    while read(client.ask(client.subject("ask"), ask)[1], 4)["calls"] != ["done"]:
        pass
    _, items, end = records(client, root, counter)
    assert len(items) == 2000 == end["items"] and all(len(item) == 1000 for item in items), (len(items), end)


def a_full_record_is_no_trouble_of_the_call(client, root, driver):
    """What is over 256 MiB is not recorded, and comes all the same."""
    stream = client.open(driver, "flood", [1 << 20, 264], credit=8 << 20)
    items, end = stream.items()
    assert len(items) == 264 == end["items"] and items[0] == items[-1] == b"\x07" * (1 << 20), end
    assert "fault" not in end and end["recorded"] > 256 * 8, end
    get = f"$JS.API.DIRECT.GET.{root}_out.{client.base}.x.{client.exporter}.out.{client.name}.{client.session}"
    for number, there in [(end["recorded"] - 1, True), (end["recorded"], False)]:
        headers, _ = client.ask(f"{get}.{driver}.{client.counter}.{number}", b"", stored=True)
        assert ("404" not in headers.split("\r\n")[0]) == there, (number, end, headers)


def main(server, token, root, exporter):
    client = Client(Nats(server, token), root, "second", exporter)
    driver = client.driver()
    credit_is_kept_and_goes_on(client, driver)
    both_halves_close_by_themselves(client, driver)
    a_failed_stream_is_reset(client, driver)
    lies_are_reset(client, driver)
    payloads_go_in_parts(client, driver)
    a_streaming_call_is_recorded_and_replayed(client, root, driver, exporter)
    a_full_record_is_no_trouble_of_the_call(client, root, driver)
    print("all is as PROTOCOL.md says")


if __name__ == "__main__":
    main(*sys.argv[1:])
