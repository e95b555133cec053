"""Messages and the shared ring: over a real socket pair, into a real child process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pytest_kvquant.engine.protocol import Channel, Closed, Ring, Silent


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def in_a_child(channel: Channel, body: Callable[[], None]) -> int:
    """Fork; the child runs ``body`` and ends with 0 if nothing went wrong."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    channel.let_go()
    return pid


def ended_well(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestMessages:
    def test_name_fields_and_payload(self, ends: tuple[Channel, Channel]) -> None:
        ours, theirs = ends
        ours.send("score", b"\x00\xff", ctx=512, text="é\n", none=None, deep={"a": [1, 2.5]})
        message = theirs.receive(5)
        assert message.name == "score"
        assert message.payload == b"\x00\xff"
        assert message.fields == {"ctx": 512, "text": "é\n", "none": None, "deep": {"a": [1, 2.5]}}

    def test_order_both_ways(self, ends: tuple[Channel, Channel]) -> None:
        ours, theirs = ends
        for number in range(50):
            ours.send("n", number=number)
            theirs.send("m", number=-number)
        assert [theirs.receive(5).fields["number"] for _ in range(50)] == list(range(50))
        assert [ours.receive(5).fields["number"] for _ in range(50)] == [-n for n in range(50)]

    def test_a_payload_larger_than_any_buffer(self, ends: tuple[Channel, Channel]) -> None:
        ours, theirs = ends
        payload = os.urandom(5 << 20)
        sender = threading.Thread(target=ours.send, args=("bulk", payload))
        sender.start()
        assert theirs.receive(20).payload == payload
        sender.join()

    def test_pending(self, ends: tuple[Channel, Channel]) -> None:
        ours, theirs = ends
        assert not theirs.pending()
        ours.send("x")
        assert theirs.pending()
        theirs.receive()
        assert not theirs.pending()

    def test_silence(self, ends: tuple[Channel, Channel]) -> None:
        with pytest.raises(Silent):
            ends[1].receive(0.01)

    def test_half_a_message_is_silence(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"\x10\x00\x00\x00")
            with pytest.raises(Silent):
                Channel(theirs).receive(0.01)

    def test_hanging_up_is_heard_after_what_was_said(self, ends: tuple[Channel, Channel]) -> None:
        ours, theirs = ends
        ours.send("last")
        ours.close()
        assert theirs.receive(5).name == "last"
        with pytest.raises(Closed):
            theirs.receive(5)
        with pytest.raises(Closed):
            theirs.receive()

    def test_nobody_there_to_send_to(self, ends: tuple[Channel, Channel]) -> None:
        ours, theirs = ends
        theirs.close()
        with pytest.raises(Closed):
            ours.send("x", bytes(1 << 20))

    def test_somebody_who_does_not_listen(self) -> None:
        """A stopped worker must not hold the run for ever."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            channel = Channel(ours, patience=0.05)
            channel.send("small")
            with pytest.raises(Silent):
                channel.send("tokens", bytes(64 << 20))

    def test_a_descriptor_of_a_process_with_many_files(self) -> None:
        """``select`` knows no descriptor from 1,024 on."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 2048:
            pytest.skip("this process may not open so many files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        ours, theirs = socket.socketpair()
        high = os.dup2(theirs.fileno(), 1500)
        try:
            channel = Channel(socket.socket(fileno=high))
            Channel(ours).send("x")
            assert channel.receive(5).name == "x"
            channel.close()
        finally:
            ours.close()
            theirs.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestAcrossAFork:
    def test_the_ring_carries_logits_without_a_copy_through_the_pipe(
        self, ends: tuple[Channel, Channel]
    ) -> None:
        ours, theirs = ends
        ring = Ring.create(vocabulary=1000, budget=2 * 7 * 1000 * 4)
        expected = np.random.default_rng(0).standard_normal((2, 7, 1000)).astype(np.float32)

        def child() -> None:
            fields = theirs.receive(5).fields
            mapped = Ring(theirs.receive_fd(), **fields)
            for slot in range(mapped.slots):
                np.copyto(mapped.slot(slot), expected[slot])
                theirs.send("rows", slot=slot)
            theirs.receive(5)

        pid = in_a_child(theirs, child)
        ours.send("ring", slots=ring.slots, rows=ring.rows, vocabulary=ring.vocabulary)
        ours.send_fd(ring.fd)
        for _ in range(2):
            slot = ours.receive(5).fields["slot"]
            np.testing.assert_array_equal(ring.slot(slot), expected[slot])
        ours.send("enough")
        assert ended_well(pid)
        ring.close()

    def test_a_killed_child_is_heard_at_once(self, ends: tuple[Channel, Channel]) -> None:
        ours, theirs = ends
        pid = in_a_child(theirs, lambda: os.kill(os.getpid(), 9))
        with pytest.raises(Closed):
            ours.receive(30)
        os.waitpid(pid, 0)

    def test_the_child_s_memory_goes_with_it(self, ends: tuple[Channel, Channel]) -> None:
        """What a dead worker wrote stays readable; its descriptor is all there is to close."""
        _, theirs = ends
        ring = Ring.create(vocabulary=10)

        def child() -> None:
            ring.slot(1)[:] = 3.0
            os.kill(os.getpid(), 9)

        pid = in_a_child(theirs, child)
        os.waitpid(pid, 0)
        assert (ring.slot(1) == 3.0).all()
        ring.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(ring.fd)


class TestRing:
    @pytest.mark.parametrize(
        ("vocabulary", "budget", "expected"),
        [(8192, 128 << 20, 2048), (248_320, 128 << 20, 67), (248_320, 1, 1)],
    )
    def test_slots_stay_within_the_budget(
        self, vocabulary: int, budget: int, expected: int
    ) -> None:
        ring = Ring.create(vocabulary=vocabulary, budget=budget)
        assert (ring.slots, ring.rows) == (2, expected)
        assert ring.slot(0).shape == (expected, vocabulary)
        ring.close()

    def test_a_view_that_is_still_held_does_not_break_closing(self) -> None:
        ring = Ring.create(vocabulary=4, budget=32)
        view = ring.slot(0)
        view[:] = 1
        ring.close()
        assert view.sum() == 4
