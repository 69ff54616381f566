"""What of the links is refused before anything starts, and which link fits an engine."""

import importlib.util
from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import info
from tests.support.engine import CheckingEngine, CheckingFactory
from tetribench.core.clock import VirtualClock
from tetribench.kv.links import LinkSpeed, Memory, Operation, VirtualLink, link_for
from tetribench.kv.links.memory import MemoryWriteLink
from tetribench.kv.links.nixl import Nixl
from tetribench.kv.links.shared_memory import SharedMemory
from tetribench.kv.links.tcp import Tcp

LEGAL = {Memory: "write and read", SharedMemory: "send", Tcp: "send", Nixl: "write and read"}


@pytest.mark.parametrize("medium", LEGAL)
@pytest.mark.parametrize("operation", Operation)
def test_a_verb_that_a_medium_has_not_got_is_refused_with_those_that_it_has(medium: Any, operation: Operation) -> None:
    if operation.value in LEGAL[medium]:
        assert operation.value in medium(operation=operation).name
        return
    with pytest.raises(ValueError, match=rf"^kv.link.operation={operation.value}: \w+ has {LEGAL[medium]} only$"):
        medium(operation=operation)


@pytest.mark.parametrize("medium", LEGAL)
def test_a_timeout_must_leave_some_time(medium: Any) -> None:
    with pytest.raises(ValueError, match=r"kv.link.timeout_s=0.0: must be positive"):
        medium(timeout_s=0.0)


def test_a_link_is_named_by_medium_verb_and_speed() -> None:
    assert Tcp().name == "tcp send"
    slow = LinkSpeed(bandwidth_bytes_per_s=25e9)
    assert Memory(speed=slow, operation=Operation.read).name == "memory read, at most 25 GB/s"


def test_what_every_machine_has_is_not_refused() -> None:
    for medium in (Memory(), SharedMemory(), Tcp()):
        medium.check()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^kv.link.host=192.0.2.1: must be an address of this machine"):
        Tcp(host="192.0.2.1").check()


def test_nixl_is_refused_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^kv/link=nixl: needs the package nixl-cu13 "):
        Nixl().check()


def test_the_link_fits_the_engine() -> None:
    clock = VirtualClock()
    engine = CheckingEngine(CheckingFactory(), clock, 0)
    assert isinstance(link_for(engine, Memory(), clock), MemoryWriteLink)
    engine.pool = None
    assert isinstance(link_for(engine, Memory(), clock), VirtualLink)
    engine.info = replace(info(), copy_bytes_per_s=None)
    with pytest.raises(AssertionError):
        link_for(engine, Memory(), clock)
