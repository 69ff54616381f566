"""What an instance can be. A flip changes it (paper section 3.5)."""

from enum import StrEnum


class Role(StrEnum):
    prefill = "prefill"
    decode = "decode"
    colocated = "colocated"

    @property
    def takes_requests(self) -> bool:
        """New requests go to instances of this role."""
        return self is not Role.decode
