import pytest

from tetribench.kv.links.speed import LinkSpeed


def test_a_message_takes_latency_and_bytes_over_bandwidth() -> None:
    assert LinkSpeed(bandwidth_bytes_per_s=25e9, latency_s=1e-5).seconds(419_430_400) == pytest.approx(
        0.016787, rel=1e-3
    )
    assert LinkSpeed(latency_s=0.5).seconds(10**12) == 0.5


@pytest.mark.parametrize("bandwidth", [0.0, -1.0])
def test_a_link_without_speed_is_refused(bandwidth: float) -> None:
    with pytest.raises(ValueError, match=r"kv.speed.bandwidth_bytes_per_s=.*must be positive, or null"):
        LinkSpeed(bandwidth_bytes_per_s=bandwidth)


def test_a_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kv.speed.latency_s=-1.0: must not be negative"):
        LinkSpeed(latency_s=-1.0)


def test_it_is_named_by_what_is_waited_for() -> None:
    assert str(LinkSpeed()) == ""
    assert str(LinkSpeed(bandwidth_bytes_per_s=25e9, latency_s=1e-5)) == "at most 25 GB/s, 10 us latency"
