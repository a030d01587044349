# SPDX-License-Identifier: Apache-2.0
"""The hub without sockets, by a clock that the test sets: newest only, acknowledgements, kept messages, stalls."""

import math
import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from usreg.errors import ConfigError
from usreg.web.hub import Hub, HubConfig


class Time:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def made(**settings):
    time = Time()
    return Hub(HubConfig(**settings), time), time


def nobody() -> None:
    pass


def taken(watcher) -> list[bytes]:
    """All that can be written now."""
    found = []
    while (message := watcher.take()) is not None:
        found.append(message)
    return found


def test_a_client_gets_what_is_kept_then_the_newest_frame():
    hub, _ = made()
    for key, message in (("hello", b"h"), ("organ/1", b"o1"), ("scene", b"s"), ("hello", b"h2"), ("organ/2", b"o2")):
        hub.keep(key, message)
    hub.show(1, b"f1")
    hub.show(2, b"f2")
    watcher = hub.join(nobody)
    assert taken(watcher) == [b"h2", b"s", b"f2", b"o1", b"o2"]
    hub.keep("scene", b"s2")
    assert taken(watcher) == [b"s2"]


def test_no_frame_before_the_acknowledgement_then_only_the_newest():
    hub, _ = made()
    watcher = hub.join(nobody)
    hub.show(1, b"f1")
    assert taken(watcher) == [b"f1"]
    for seq in range(2, 6):
        hub.show(seq, b"f%d" % seq)
        assert taken(watcher) == []
    assert not watcher.acknowledge(4) and taken(watcher) == []
    assert watcher.acknowledge(1)
    assert taken(watcher) == [b"f5"]
    assert hub.figures()["clients"][0]["skipped"] == 3


def test_an_older_frame_waits_for_the_next_but_not_for_ever():
    hub, time = made(wait_s=0.1)
    watcher = hub.join(nobody)
    for seq in range(50):  # 30 Hz
        time.now_s += 1 / 30
        hub.show(seq, b"f%d" % seq)
    assert taken(watcher) == [b"f49"]
    time.now_s += 1 / 30
    hub.show(50, b"f50")
    time.now_s += 0.01  # younger than half an interval
    watcher.acknowledge(49)
    assert taken(watcher) == [b"f50"]
    time.now_s += 1 / 30
    hub.show(51, b"f51")
    time.now_s += 0.025  # the next one is near
    watcher.acknowledge(50)
    assert taken(watcher) == [] and watcher.wait_s() == pytest.approx(0.075)
    time.now_s += 0.08  # it did not come: a source that was stopped shows its last one
    assert watcher.wait_s() == 0.0 and taken(watcher) == [b"f51"]


def test_a_client_that_never_acknowledges_gets_no_more_until_it_does():
    hub, time = made(stalled_s=10.0)
    watcher = hub.join(nobody)
    hub.show(1, b"f1")
    assert taken(watcher) == [b"f1"]
    time.now_s += 9.0
    hub.keep("status", b"s1")
    assert taken(watcher) == [b"s1"] and not watcher.stalled
    time.now_s += 2.0
    for n in range(1000):
        hub.show(n + 2, b"f")
        hub.keep("status", b"n%d" % n)
    assert watcher.stalled and watcher.wait_s() == math.inf and taken(watcher) == []
    assert len(watcher.pending) == 1
    assert hub.figures()["clients"][0]["stalled"]
    watcher.acknowledge(1)
    assert taken(watcher) == [b"n999", b"f"]


def test_clients_do_not_depend_on_each_other():
    hub, _ = made()
    slow, quick = hub.join(nobody), hub.join(nobody)
    for seq in range(10):
        hub.show(seq, b"f%d" % seq)
        assert taken(quick) == [b"f%d" % seq]
        quick.acknowledge(seq)
        taken(slow)
    figures = {c["client"]: c for c in hub.figures()["clients"]}
    assert (figures[slow.number]["sent"], figures[slow.number]["skipped"]) == (1, 9)
    assert (figures[quick.number]["sent"], figures[quick.number]["skipped"]) == (10, 0)


def test_hungry_follows_the_acknowledgements():
    hub, _ = made()
    assert not hub.watched and not hub.hungry and not hub.wait_hungry(0.0)
    watcher = hub.join(nobody)
    assert hub.watched and hub.hungry
    hub.show(1, b"f")
    watcher.take()
    assert not hub.hungry
    waited = []
    thread = threading.Thread(target=lambda: waited.append(hub.wait_hungry(10.0)))
    thread.start()
    watcher.acknowledge(1)
    thread.join()
    assert waited == [True] and hub.hungry
    hub.leave(watcher)
    assert not hub.watched and not hub.hungry


def test_the_first_and_the_last_client_are_told():
    hub, _ = made()
    told = []
    hub.on_watch(lambda watched: 1 / 0)  # ends nothing
    hub.on_watch(told.append)
    a, b = hub.join(nobody), hub.join(nobody)
    hub.leave(a)
    hub.leave(a)
    assert told == [True]
    hub.leave(b)
    assert told == [True, False]


def test_forgotten_messages_are_not_sent():
    hub, _ = made()
    watcher = hub.join(nobody)
    for key in ("hello", "organ/1", "organ/2", "status"):
        hub.keep(key, key.encode())
    hub.forget("organ/")
    hub.keep("status", None)
    hub.keep("never", None)
    assert taken(watcher) == [b"hello"] and taken(hub.join(nobody)) == [b"hello"]


def test_only_clients_with_something_to_get_are_woken():
    hub, _ = made()
    woken = []
    watcher = hub.join(lambda: woken.append(1))
    hub.show(1, b"f1")
    assert woken == [1]
    taken(watcher)
    hub.show(2, b"f2")  # its frame is out
    assert woken == [1]
    watcher.acknowledge(1)
    assert woken == [1, 1]


def test_answers_come_first_and_are_bounded():
    hub, _ = made(max_answers=2)
    hub.keep("hello", b"h")
    watcher = hub.join(nobody)
    assert watcher.answer(b"a1") and watcher.answer(b"a2") and not watcher.answer(b"a3")
    assert taken(watcher) == [b"a1", b"a2", b"h"]


def test_drawn_latencies_are_counted_from_show():
    hub, time = made()
    watcher = hub.join(nobody)
    for seq, latency_s in enumerate([0.02, 0.04, 0.06]):
        hub.show(seq, b"f")
        taken(watcher)
        drawn_s = time.now_s + latency_s
        time.now_s += 0.5
        watcher.acknowledge(seq, drawn_s)
    hub.show(3, b"f")
    taken(watcher)
    watcher.acknowledge(3, time.now_s + 1e6)  # no clock of this world
    found = hub.figures()["clients"][0]
    assert found["drawn_median_s"] == pytest.approx(0.04) and found["drawn_p95_s"] == pytest.approx(0.06)
    assert found["acknowledged"] == 4


@pytest.mark.parametrize("settings", [{"wait_s": -1.0}, {"stalled_s": 0.0}, {"max_answers": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ConfigError):
        HubConfig(**settings)


class Traffic(RuleBasedStateMachine):
    """Whatever happens in whatever order: a frame that is sent is the newest, none twice, one out at most."""

    def __init__(self):
        super().__init__()
        self.hub, self.time = made()
        self.watcher = self.hub.join(nobody)
        self.seq, self.out, self.sent = 0, None, [-1]
        self.kept = {}

    @rule(wait=st.sampled_from([0.0, 0.01, 0.033, 0.2, 20.0]))
    def wait(self, wait):
        self.time.now_s += wait

    @rule()
    def show(self):
        self.seq += 1
        self.hub.show(self.seq, b"f%d" % self.seq)

    @rule(key=st.sampled_from(["hello", "organ/1", "organ/2"]), value=st.binary(min_size=1, max_size=3))
    def keep(self, key, value):
        self.hub.keep(key, b"k" + value)

    @rule()
    def write(self):
        message = self.watcher.take()
        if message and message.startswith(b"f"):
            assert self.out is None and int(message[1:]) == self.seq > self.sent[-1]
            self.out = self.seq
            self.sent.append(self.seq)

    @rule(right=st.booleans())
    def acknowledge(self, right):
        taken_now = self.watcher.acknowledge(self.out if right and self.out else 10**6)
        assert taken_now == bool(right and self.out)
        self.out = None if taken_now else self.out

    @invariant()
    def what_waits_is_bounded(self):
        assert len(self.watcher.pending) <= 3
        assert self.watcher.ready == (self.out is None)


test_traffic = Traffic.TestCase
