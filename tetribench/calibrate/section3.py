"""The paper's interference study (arXiv 2401.11181 section 3, figures 2 to 5), read off: OPT-13B on two V100, fp16.

How each point is read as an iteration; the paper says lengths (light prompt 18 tokens, heavy 512; light decode 20 to
100 generated tokens, heavy more than 512) and not what an iteration held.

* Figure 2a: one prompt of so many tokens. Prefill tokens a second, so that seconds = tokens / speed.
* Figure 2b: so many light decodes. Tokens a second; a decode step yields one for each.
* Figure 3: 1 + N prompts in one iteration, all from their first token.
* Figure 4: the prompts and the decodes in one iteration, as vLLM of 2023 could batch them. Both panels hold the pair
  of one light prompt and one light decode, at 32 ms and at 39 ms: these points are good to about 10 %.
* Figure 5: decodes only, in the ratio that is said; where a batch is too small for it, to the nearest whole sequence.

A decode's context is its prompt of 18 tokens and, as throughput was measured over whole responses, half of its
response: 60 tokens (the middle of 20 to 100), or 512. Much longer heavy responses would not fit: 128 sequences of 274
tokens are 35,000 tokens, and 90 % of the two devices' memory less the weights holds 44,000.
"""

from collections.abc import Iterator

from tetribench.calibrate.steps import Point, Step
from tetribench.engine.model import Model

OPT_13B = Model(
    name="opt_13b", num_layers=40, hidden_size=5120, ffn_size=20480, num_heads=40, num_kv_heads=40, vocab_size=50272
).shape()

NUM_DEVICES = 2
LIGHT_PROMPT, HEAVY_PROMPT = 18, 512
LIGHT_CONTEXT, HEAVY_CONTEXT = 18 + 60 // 2, 18 + 512 // 2

PREFILL_TOKENS_PER_S = {8: 279, 16: 454, 32: 872, 64: 1398, 128: 2030, 256: 2759, 512: 3565, 1024: 3570}
DECODE_TOKENS_PER_S = {2: 73, 4: 126, 8: 239, 16: 358, 32: 661, 64: 928, 128: 1142, 256: 1345, 512: 1434}

PREFILL_WITH_PREFILL_MS: dict[str, tuple[str, str, dict[int, float]]] = {
    "light prefill, N light": ("light", "light", {0: 40.6, 1: 46, 3: 63, 7: 77, 15: 106, 31: 176, 63: 333}),
    "light prefill, N heavy": ("light", "heavy", {0: 40.6, 1: 156, 3: 413}),
    "heavy prefill, N light": ("heavy", "light", {0: 142, 1: 156, 3: 166, 7: 175, 15: 225, 31: 301, 63: 469}),
}
"""By series: the prompt that is looked at, those beside it, and by their number the milliseconds."""

DECODE_WITH_PREFILL_MS: dict[str, tuple[str, dict[int, float]]] = {
    "light decode, N light prefills": ("light", {0: 26.8, 1: 32, 3: 46, 7: 66, 15: 101, 31: 185, 63: 325}),
    "light decode, N heavy prefills": ("heavy", {0: 26.8, 1: 134.5, 3: 383}),
}
PREFILL_WITH_DECODE_MS: dict[str, tuple[str, dict[int, float]]] = {
    "light prefill, N light decodes": ("light", {1: 39, 3: 41, 7: 40, 15: 48, 31: 59, 63: 80}),
    "heavy prefill, N light decodes": ("heavy", {1: 134, 3: 135, 7: 156, 15: 159, 31: 172, 63: 190}),
}

BATCHES = (2, 4, 8, 16, 32, 64, 128)
DECODE_MIX_TOKENS_PER_S = {
    "all light": (0.0, (78, 166, 310, 541, 741, 1054, 1284)),
    "light:heavy 7:1": (1 / 8, (87, 166, 280, 464, 718, 963, 1225)),
    "light:heavy 1:1": (1 / 2, (81, 156, 242, 434, 674, 910, 1045)),
    "light:heavy 1:7": (7 / 8, (73, 125, 267, 433, 665, 840, 1002)),
    "all heavy": (1.0, (77, 130, 239, 432, 669, 817, 951)),
}
"""By series: the share of heavy decodes, and the speed at each of `BATCHES`."""

_PROMPT = {"light": LIGHT_PROMPT, "heavy": HEAVY_PROMPT}


def points() -> list[Point]:
    """All of section 3; a step that two series of a figure share, such as one prompt alone, counts once."""
    found: dict[tuple[str, tuple[tuple[int, int], ...], tuple[int, ...], float], Point] = {}
    for point in [*figure_2a(), *figure_2b(), *figure_3(), *figure_4(), *figure_5()]:
        key = point.group, tuple(sorted(point.step.chunks)), point.step.contexts, point.measured_s
        found.setdefault(key, point)
    return list(found.values())


def figure_2a() -> list[Point]:
    """Prefill speed by the tokens of an iteration."""
    speeds = PREFILL_TOKENS_PER_S.items()
    return [_point("2a", "prefill", size, Step(prompts(size)), size / speed) for size, speed in speeds]


def figure_2b() -> list[Point]:
    """Decode speed by the sequences of an iteration."""
    speeds = DECODE_TOKENS_PER_S.items()
    return [_point("2b", "decode", num, Step((), (LIGHT_CONTEXT,) * num), num / speed) for num, speed in speeds]


def figure_3() -> list[Point]:
    """A prompt with others."""
    return list(_figure_3())


def _figure_3() -> Iterator[Point]:
    for series, (one, other, times) in PREFILL_WITH_PREFILL_MS.items():
        for num, milliseconds in times.items():
            step = Step(prompts(_PROMPT[one], *[_PROMPT[other]] * num))
            yield _point("3", series, num, step, milliseconds / 1e3)


def figure_4() -> list[Point]:
    """Prompts with decodes."""
    return list(_figure_4())


def _figure_4() -> Iterator[Point]:
    for series, (kind, times) in DECODE_WITH_PREFILL_MS.items():
        for num, milliseconds in times.items():
            step = Step(prompts(*[_PROMPT[kind]] * num), (LIGHT_CONTEXT,))
            yield _point("4", series, num, step, milliseconds / 1e3)
    for series, (kind, times) in PREFILL_WITH_DECODE_MS.items():
        for num, milliseconds in times.items():
            step = Step(prompts(_PROMPT[kind]), (LIGHT_CONTEXT,) * num)
            yield _point("4", series, num, step, milliseconds / 1e3)


def figure_5() -> list[Point]:
    """Decodes with decodes."""
    return list(_figure_5())


def _figure_5() -> Iterator[Point]:
    for series, (heavy_share, speeds) in DECODE_MIX_TOKENS_PER_S.items():
        for num, speed in zip(BATCHES, speeds, strict=True):
            num_heavy = int(heavy_share * num + 0.5)
            contexts = (LIGHT_CONTEXT,) * (num - num_heavy) + (HEAVY_CONTEXT,) * num_heavy
            yield _point("5", series, num, Step((), contexts), num / speed)


def prompts(*sizes: int) -> tuple[tuple[int, int], ...]:
    """Whole prompts of these sizes, in one iteration."""
    return tuple((0, size) for size in sizes)


def _point(group: str, series: str, x: float, step: Step, seconds: float) -> Point:
    return Point(group=group, series=series, x=x, model=OPT_13B, step=step, measured_s=seconds, num_devices=NUM_DEVICES)
