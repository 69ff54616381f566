"""The parts of the comparison of load generators: its server tells the truth, and what clients write is read right."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.clients import own
from tests.benchmarks.clients.load import NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, Load, Ttft
from tests.benchmarks.clients.peers import PEERS, Inputs, Peer
from tests.benchmarks.clients.prompts import save_prompts, save_tokenizer
from tests.benchmarks.clients.truth import diary, forget, null_server
from tests.processes import is_alive, until

TTFT_S = 0.02
GAP_S = 0.001


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with null_server(TTFT_S, GAP_S) as address:
        yield address


def completion(url: str, **asked: Any) -> list[Any]:
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(asked).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        lines = [line[6:] for line in answer.read().split(b"\n") if line]
    assert lines.pop() == b"[DONE]"
    return [json.loads(line) for line in lines]


def test_our_client_gets_what_the_server_wrote(url: str, tmp_path: Path) -> None:
    said, truth = own.measure(url, Load(num_streams=3, num_requests=9), tmp_path), diary(url)
    assert said.num_requests == truth.ttft.num_requests == 9
    assert said.mean_ms >= truth.ttft.mean_ms >= 1e3 * TTFT_S, "nothing can be there before it was written"


def test_a_completion_is_as_long_as_was_asked_for(url: str) -> None:
    chunks = completion(url, prompt=[1, 2, 3], max_tokens=5, return_token_ids=True)
    assert [chunk["choices"][0]["token_ids"] for chunk in chunks] == [[7]] * 5
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["length"]
    assert diary(url).ttft.num_requests == 1
    with pytest.raises(RuntimeError, match="nothing was served"):
        diary(url)


@pytest.mark.parametrize(("prompt", "num_tokens"), [([1, 2, 3], 3), ("w1 w2", 2), (["w1 w2 w3 w4"], 4)])
def test_usage_counts_ids_and_words(url: str, prompt: Any, num_tokens: int) -> None:
    *chunks, usage = completion(url, prompt=prompt, max_tokens=2, stream_options={"include_usage": True})
    assert len(chunks) == 2 and "token_ids" not in chunks[0]["choices"][0]
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (num_tokens, 2)


def test_what_clients_write_is_read(tmp_path: Path) -> None:
    guidellm, aiperf, sglang = PEERS
    ttft = {"count": 3, "mean": 50.5, "percentiles": {"p99": 60.5}}
    documents: dict[str, Any] = {
        "result.json": {"benchmarks": [{"metrics": {"time_to_first_token_ms": {"successful": ttft}}}]},
        "result/profile_export_aiperf.json": {"time_to_first_token": {"count": 3, "avg": 50.5, "p99": 60.5}},
        "result.jsonl": {"completed": 3, "mean_ttft_ms": 50.5, "p99_ttft_ms": 60.5},
    }
    (tmp_path / "result").mkdir()
    for peer, (name, document) in zip((guidellm, aiperf, sglang), documents.items(), strict=True):
        (tmp_path / name).write_text(json.dumps(document))
        assert peer.read(tmp_path) == Ttft(3, 50.5, 60.5)


def test_peers_are_given_the_load() -> None:
    inputs = Inputs(Path("tokenizer"), Path("prompts"))
    for peer in PEERS:
        command = " ".join(peer.command("http://server", Load(8, 80), inputs, Path("results")))
        for part in ("http://server", "tokenizer", "prompts", "8", "80", str(NUM_OUTPUT_TOKENS)):
            assert part in command, (peer.name, part)


def peer_that(runs: str) -> Peer:
    """A Python program, as a peer that writes what the first one writes."""
    return Peer("peer", Path(sys.executable), "", lambda url, load, inputs, folder: ["-c", runs, url], PEERS[0].read)


def test_a_client_that_fails_says_so_and_leaves_nothing_behind(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, load = Inputs(tmp_path, tmp_path), Load(1, 1)
    with pytest.raises(RuntimeError, match=r"^peer ended with code 3:\nno luck"):
        peer_that("print('no luck'); raise SystemExit(3)").measure(url, load, inputs, tmp_path / "1")
    monkeypatch.setattr("tests.benchmarks.clients.peers.TIMEOUT_S", 5.0)
    child = "import subprocess as s, time; open('child', 'w').write(str(s.Popen(['sleep', '60']).pid)); time.sleep(60)"
    with pytest.raises(RuntimeError, match=r"^peer did not end within 5 s$"):
        peer_that(child).measure(url, load, inputs, tmp_path / "2")
    child_id = int((tmp_path / "2" / "child").read_text())
    until(lambda: not is_alive(child_id))


def test_what_a_failed_client_was_served_is_forgotten(url: str) -> None:
    completion(url, prompt=[1], max_tokens=1)
    forget(url)
    with pytest.raises(RuntimeError, match="nothing was served"):
        diary(url)


def test_a_word_of_a_prompt_is_a_token(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    save_prompts(tmp_path / "prompts.jsonl", 3)
    prompts = [json.loads(line)["prompt"] for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    tokenizer: Any = AutoTokenizer.from_pretrained(str(tmp_path))
    assert [len(tokenizer.encode(prompt)) for prompt in prompts] == [NUM_PROMPT_TOKENS] * 3 and len(set(prompts)) == 3
