"""What may be recorded and replayed, told before anything is loaded. No torch here."""

from tetribench.engine.hf.attention.options import REPLAYS_CHUNKS, Attention

CUDA_SEQUENCES = 256
"""As many as decode.max_num_seqs lets run by default."""

CPU_SEQUENCES = 64
"""What is saved, half of a pass of one, becomes less with the sequences. A bucket takes two hundredths of a second for
each layer to record."""


def sequences_by_default(attention: Attention, is_cuda: bool) -> int:
    """Of greedy decodes on one device: none where a pass of fixed size would do more than one of its own."""
    if is_cuda:
        return 0 if attention in (Attention.sdpa, Attention.native, Attention.flashinfer) else CUDA_SEQUENCES
    return CPU_SEQUENCES if attention is Attention.native else 0


def check_sequences(number: int | None, attention: Attention, temperature: float) -> None:
    """Raises a one-line ValueError."""
    if number:
        said = f"engine.graph_sequences={number}"
        _check_greedy(said, number, temperature, or_null=True)
        if attention is Attention.flashinfer:
            raise ValueError(f"{said}: flashinfer plans each pass on the host; must be 0 or null with it")


def check_chunk_tokens(number: int, attention: Attention, temperature: float, tensor_parallel: int) -> None:
    """Raises a one-line ValueError."""
    if number:
        said = f"engine.graph_chunk_tokens={number}"
        _check_greedy(said, number, temperature, or_null=False)
        if attention is not Attention.auto and attention not in REPLAYS_CHUNKS:
            raise ValueError(f"{said}: {attention.value} plans each chunk on the host; must be 0 with it")
        if tensor_parallel > 1:
            raise ValueError(
                f"{said}: is not for several ranks; must be 0 with engine.tensor_parallel={tensor_parallel}"
            )


def _check_greedy(said: str, number: int, temperature: float, or_null: bool) -> None:
    if number < 0:
        raise ValueError(f"{said}: must be at least 0 (no graphs){', or null' * or_null}")
    if temperature > 0:
        none = "0 or null" if or_null else "0"
        raise ValueError(f"{said}: graphs decode greedily; must be {none} with engine.temperature={temperature}")
