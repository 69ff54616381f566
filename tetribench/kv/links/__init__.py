"""The third seam: how KV blocks get from one instance's pool to another's (paper sections 3.3.4 and 4).

The paper has one API over three classes of link, and emulates the speed of those that it has not got by waiting. Both
are chosen apart from each other, because any medium can be slowed down to any speed:

* `kv/link`, the medium that carries the bytes. Direct: `memory`. Direct-NIC: `nixl`. Indirect: `shared_memory`, `tcp`.
  Its `operation` is the verb that carries a push. `ts_roce` and `ts_nvlink` are the paper's own links by name: `memory`
  at that speed.
* `kv/speed`, how fast the link is said to be: `machine`, `ts_roce`, `ts_nvlink`.

The loop calls `move` whatever the medium and the verb are; the receiver's part is done by the link itself.
"""

from tetribench.core.clock import Clock
from tetribench.engine.base import Engine
from tetribench.kv.links.base import Link, LinkFailed, Medium, Operation
from tetribench.kv.links.memory import Memory
from tetribench.kv.links.speed import LinkSpeed
from tetribench.kv.links.virtual import VirtualLink

__all__ = ["Link", "LinkFailed", "LinkSpeed", "Medium", "Memory", "Operation", "VirtualLink", "link_for"]


def link_for(engine: Engine, medium: Medium, clock: Clock) -> Link:
    """The link that fits the engine: over `medium` where there are bytes, else one that sleeps."""
    if engine.pool is not None:
        return medium.build(engine.pool, clock)
    info = engine.info
    assert info.copy_bytes_per_s is not None
    return VirtualLink(medium.speed, clock, info.block_bytes, info.copy_bytes_per_s, info.copy_latency_s)
