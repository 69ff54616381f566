from tests.support import load
from tetribench.control.monitor import ClusterMonitor


def test_the_latest_load_of_every_decode_instance_is_broadcast() -> None:
    monitor = ClusterMonitor({"decode-0": load(1000), "decode-1": load(1000)})
    monitor.report("decode-1", load(500, time_s=1.0))
    monitor.report("decode-1", load(300, time_s=2.0))
    assert monitor.broadcast() == {"decode-0": load(1000), "decode-1": load(300, time_s=2.0)}


def test_loads_of_other_instances_are_not_kept() -> None:
    monitor = ClusterMonitor({"decode-0": load()})
    monitor.report("prefill-0", load(1))
    assert monitor.broadcast() == {"decode-0": load()}


def test_a_broadcast_is_a_snapshot() -> None:
    first = {"decode-0": load(1000)}
    monitor = ClusterMonitor(first)
    sent = monitor.broadcast()
    monitor.report("decode-0", load(1))
    assert sent == first == {"decode-0": load(1000)}
