from tests.support.builders import load
from tetribench.control.monitor import ClusterMonitor, State
from tetribench.core.load import InstanceLoad
from tetribench.core.roles import Role


def monitor(**loads: InstanceLoad) -> ClusterMonitor:
    """Decode instances with these loads, and an empty prefill instance."""
    made = ClusterMonitor()
    made.add("prefill-0", Role.prefill, load())
    for name, one in loads.items():
        made.add(name, Role.decode, one)
    return made


def test_the_latest_load_of_every_decode_instance_is_broadcast() -> None:
    made = monitor(a=load(1000), b=load(1000))
    made.report("b", load(500, time_s=1.0))
    made.report("b", load(300, time_s=2.0))
    assert made.broadcast() == {"a": load(1000), "b": load(300, time_s=2.0)}


def test_loads_of_prefill_instances_are_kept_and_not_broadcast() -> None:
    made = monitor(a=load())
    made.report("prefill-0", load(1))
    assert made.members["prefill-0"].load == load(1)
    assert made.broadcast() == {"a": load()}


def test_a_broadcast_is_a_snapshot() -> None:
    made = monitor(a=load(1000))
    sent = made.broadcast()
    made.report("a", load(1))
    assert sent == {"a": load(1000)}


def test_an_instance_that_drains_is_not_broadcast_but_still_a_member() -> None:
    made = monitor(a=load(), b=load())
    made.members["a"].state = State.draining
    assert list(made.broadcast()) == ["b"]
    assert made.named(Role.decode) == ["a", "b"]


def test_a_late_report_of_an_instance_that_is_gone_is_dropped() -> None:
    made = monitor(a=load())
    assert made.remove("a") is not None and made.remove("a") is None
    made.report("a", load(1))
    assert made.members.keys() == {"prefill-0"}


def test_an_emptied_instance_has_all_its_memory_from_now_on() -> None:
    assert monitor(a=load(-50, time_s=1.0, num_heavy=3)).emptied("a", 4.0) == load(1000, time_s=4.0)
