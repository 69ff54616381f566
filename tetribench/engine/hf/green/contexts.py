"""Green contexts: all that is asked of NVIDIA's driver. They have not yet run on a GPU.

torch's own `GreenContext.create` is of no use here: it takes the first group of a split and drops the rest, so that two
of them would be on the same multiprocessors.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any


def is_installed() -> bool:
    """Whether the driver can be asked."""
    return find_spec("cuda") is not None and find_spec("cuda.bindings") is not None


class GreenContext:
    """Some multiprocessors of a GPU. It lives as long as the process."""

    def __init__(self, driver: Any, device: Any, multiprocessors: Any) -> None:
        self._driver = driver
        self.num_multiprocessors: int = multiprocessors.sm.smCount
        descriptor = _ask(driver, "cuDevResourceGenerateDesc", [multiprocessors], 1)
        with_stream = driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
        self._context = _ask(driver, "cuGreenCtxCreate", descriptor, device, with_stream)

    def new_stream(self) -> int:
        """The handle of a stream whose work runs here, in no order with any other stream's."""
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        return int(_ask(self._driver, "cuGreenCtxStreamCreate", self._context, flags, 0))


def divide(driver: Any, device_index: int, num_first: int) -> tuple[GreenContext, GreenContext]:
    """A context of `num_first` multiprocessors, and one of all others. CUDA has been initialized.

    Two, because the driver does not promise that what remains of a split can be split again. Raises ValueError where
    it refuses, or rounds so that nothing is left.
    """
    device = _ask(driver, "cuDeviceGet", device_index)
    every = _ask(driver, "cuDeviceGetDevResource", device, driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM)
    groups, num_groups, rest = _ask(driver, "cuDevSmResourceSplitByCount", 1, every, 0, num_first)
    if num_groups != 1 or rest.sm.smCount == 0:
        raise _refusal(f"the driver does not divide {every.sm.smCount} multiprocessors at {num_first}")
    return GreenContext(driver, device, groups[0]), GreenContext(driver, device, rest)


@cache
def contexts_of(device_index: int, num_first: int) -> tuple[GreenContext, GreenContext]:
    """The two of a GPU, made once in a process: engines that come later have the multiprocessors of those before."""
    from cuda.bindings import driver

    return divide(driver, device_index, num_first)


def _ask(driver: Any, function: str, *arguments: Any) -> Any:
    """What a function of the driver answers beside its code: one value, or a list of several."""
    try:
        code, *answers = getattr(driver, function)(*arguments)
    except RuntimeError as error:  # it is not in a driver as old as this one
        raise _refusal(str(error)) from error
    if code != driver.CUresult.CUDA_SUCCESS:
        raise _refusal(f"{function} answers {code.name}")
    return answers[0] if len(answers) == 1 else answers


def _refusal(reason: str) -> ValueError:
    return ValueError(f"system.tetri.sharing=green_contexts: {reason}; must be none, time_slicing or mps")
