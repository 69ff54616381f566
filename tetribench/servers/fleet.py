"""The servers of a run, wherever they come from."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tetribench.instance.launch import InstanceFailed, InstanceSpec
from tetribench.servers.refused import Refused

if TYPE_CHECKING:
    from tetribench.servers.http import Http

OnDeath = Callable[[str, str], None]
"""Called with the name of a server that has died, and why."""


class Fleet(Protocol):
    async def start(self, specs: list[InstanceSpec], http: "Http", on_death: OnDeath) -> dict[str, str]:
        """By instance the address of its server, such as http://127.0.0.1:8000, once all are ready to serve.

        Raises InstanceFailed where one does not come up; `stop` ends all.
        """

    def facts(self, spec: InstanceSpec) -> dict[str, Any]:
        """What is known of a server that it does not say itself."""

    def kill(self, name: str) -> None:
        """End a server at once."""

    async def stop(self) -> None:
        """End what was started; may be called in any state."""


class Elsewhere:
    """One server that runs already, at `address`; it is used and left alone."""

    def __init__(self, address: str, num_devices: int) -> None:
        self._address = address
        self._num_devices = num_devices

    async def start(self, specs: list[InstanceSpec], http: "Http", on_death: OnDeath) -> dict[str, str]:
        try:
            await http.get(f"{self._address}/v1/models")
        except Refused as refused:
            raise InstanceFailed(f"{self._address}: {refused}") from None
        return {spec.name: self._address for spec in specs}

    def build(self, log_folder: Path) -> "Elsewhere":
        """Nothing is written down of it."""
        return self

    def facts(self, spec: InstanceSpec) -> dict[str, Any]:
        return {"num_devices": self._num_devices, "address": self._address}

    def kill(self, name: str) -> None:
        raise AssertionError("a server that runs elsewhere is not ours to end")

    async def stop(self) -> None:
        """Nothing was started."""
