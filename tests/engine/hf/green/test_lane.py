"""That all of an engine is launched on its own lane, whichever thread does it."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.engine.hf.driver import MODELS, Driver, tiny_engine
from tests.engine.hf.green.driver import FakeDriver
from tetribench.core.clock import WallClock
from tetribench.engine.hf import build
from tetribench.engine.hf.attention.choose import choose_attention
from tetribench.engine.hf.cache import TorchKVPool
from tetribench.engine.hf.green.contexts import contexts_of, divide
from tetribench.engine.hf.lane import GreenLane, Lane
from tetribench.engine.hf.pack import Packer


class WatchedLane(Lane):
    """Knows which threads launch here."""

    num_multiprocessors = 40

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.entered: list[str] = []
        self.meanwhile: set[int] = set()

    def enter(self) -> None:
        self.entered.append(threading.current_thread().name)
        self.meanwhile.add(threading.get_ident())

    @contextmanager
    def launching(self) -> Iterator[None]:
        self.meanwhile.add(threading.get_ident())
        yield
        self.meanwhile.remove(threading.get_ident())

    def new_stream(self) -> Any:
        return None  # a copy on no stream of its own is one on the CPU

    @property
    def is_here(self) -> bool:
        return threading.get_ident() in self.meanwhile


def test_an_engine_is_made_warmed_up_packed_for_and_run_on_its_lane(
    loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, seen = WatchedLane(torch.device("cpu")), set()

    def watched(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            assert lane.is_here, name
            seen.add((name, threading.current_thread().name.partition("_")[0]))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    watched(build, "load_model")
    watched(TorchKVPool, "allocate")
    watched(TorchKVPool, "copy_on")
    watched(Packer, "pack")
    watched(torch, "argmax")
    monkeypatch.setattr(build, "_lane", lambda engine, device: lane)
    monkeypatch.setattr(build, "choose_attention", _checked(lane, choose_attention))
    engine = tiny_engine(MODELS["opt"])
    engine.graph_sequences = 2
    runner = engine.build(WallClock(), None)
    assert not lane.is_here and lane.entered == ["engine_0"]
    assert runner.info.num_multiprocessors == 40
    driver = Driver(runner, loop)
    driver.finish([driver.sequence(0, [3, 4, 5], 3)], 2)
    runner.close()
    assert seen == {
        *(("load_model", "MainThread"), ("allocate", "MainThread"), ("copy_on", "MainThread")),
        *(("pack", "MainThread"), ("pack", "engine"), ("argmax", "engine")),
    }


def _checked(lane: WatchedLane, original: Any) -> Any:
    def call(*arguments: Any) -> Any:
        assert lane.is_here, "the self-check too"
        return original(*arguments)

    return call


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is done with streams, in place of torch's."""
    done: list[tuple[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: (handle, str(device)))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(("device", str(device))))
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: done.append(("stream", stream)))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: done.append(("meanwhile", stream)))
    return done


def test_a_part_of_a_gpu_has_streams_of_its_own_context(streams: list[tuple[str, Any]]) -> None:
    driver = FakeDriver(132)
    lanes = [GreenLane(torch.device("cuda", 1), context) for context in divide(driver, 1, 96)]
    assert [lane.num_multiprocessors for lane in lanes] == [96, 36]
    for place, lane in enumerate(lanes):
        streams.clear()
        lane.enter()
        lane.launching()
        (_, device), (_, own), (_, same) = streams
        assert device == "cuda:1" and own == same == lane.recording_stream() and own[1] == "cuda:1"
        beside = lane.new_stream()
        assert beside != own
        assert driver.streams[own[0]] == driver.streams[beside[0]] == place  # type: ignore[index]


def test_the_parts_of_a_gpu_are_made_once(monkeypatch: pytest.MonkeyPatch, streams: list[tuple[str, Any]]) -> None:
    """Each engine asks by itself, and made again the parts would overlap."""
    driver = FakeDriver(132)
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=driver))
    contexts_of.cache_clear()
    engine = tiny_engine(MODELS["opt"])
    assert type(build._lane(engine, torch.device("cpu"))) is Lane
    engine.num_first_multiprocessors = 96
    found = [build._lane(engine.in_part(part), torch.device("cuda", 0)).num_multiprocessors for part in (0, 1, 0)]
    contexts_of.cache_clear()
    assert found == [96, 36, 96] and len(driver.contexts) == 2
