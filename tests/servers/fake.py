"""A small OpenAI-compatible server that behaves, or misbehaves, as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class FakeServer:
    """Answers prompts of token ids with 100, 101, ...; `fault` says what goes wrong, for prompts that begin with 13."""

    def __init__(self, fault: str = "", tokens_per_chunk: int = 1, has_token_ids: bool = True) -> None:
        self.fault = fault
        self.tokens_per_chunk = tokens_per_chunk
        self.has_token_ids = has_token_ids
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.num_tokens = [0, 0]
        self.num_waiting = 0
        """Connections on which nothing has been asked yet."""
        self.most_waiting = 0
        """At one time."""
        self.address = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeServer"]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_waiting += 1
        self.most_waiting = max(self.most_waiting, self.num_waiting)
        try:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            finally:
                self.num_waiting -= 1
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            content = await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = first.split()
            if method == "GET":
                self._answer(writer, 200, self._document(path))
            else:
                self.headers.append(headers)
                await self._complete(writer, json.loads(content))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _document(self, path: str) -> str:
        if path != "/metrics":
            return "{}"
        prompt, output = self.num_tokens
        return (
            f'vllm:prompt_tokens_total{{engine="0"}} {prompt}.0\n'
            f'vllm:generation_tokens_total{{engine="0"}} {output}.0\n'
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="100",enable_prefix_caching="False"} 1.0\n'
        )

    def _answer(self, writer: asyncio.StreamWriter, status: int, text: str) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        writer.write((head + text).encode())

    async def _complete(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        self.bodies.append(body)
        fault = self.fault if body["prompt"][0] == 13 else ""
        if fault.isdigit():
            self._answer(writer, int(fault), '{"error": {"message": "no\\n room"}}')
            return
        self.num_tokens[0] += len(body["prompt"])
        if not body["stream"]:
            self.num_tokens[1] += 1
            handed = {} if fault == "keeps its KV" else {"kv_transfer_params": {"remote_port": 7}}
            self._answer(writer, 200, json.dumps({"choices": [{"token_ids": [100]}], **handed}))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: hello\n\n")
        num_tokens = body["max_tokens"] - (fault == "too few") + (fault == "too many")
        for start in range(0, num_tokens, self.tokens_per_chunk):
            if start >= 2 and fault == "dies":
                writer.transport.abort()
                return
            if start >= 2 and fault == "silent":
                await asyncio.sleep(30.0)
            if start >= 2 and fault == "error":
                writer.write(b'data: {"error": {"message": "out of luck", "code": 500}}\n\n')
                return
            if start >= 2 and fault == "nonsense":
                writer.write(b"data: {nonsense\n\n")
                return
            ids = list(range(100 + start, 100 + min(start + self.tokens_per_chunk, num_tokens)))
            self.num_tokens[1] += len(ids)
            is_last = start + len(ids) == num_tokens
            choice: dict[str, Any] = {"text": "x", "finish_reason": "length" if is_last else None}
            if self.has_token_ids and body.get("return_token_ids"):
                choice["token_ids"] = ids
            writer.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            await writer.drain()
        if fault == "stops":
            writer.write(b'data: {"choices": [{"text": "", "token_ids": [], "finish_reason": "stop"}]}\n\n')
        if fault != "no end":
            writer.write(b"data: [DONE]\n\n")
