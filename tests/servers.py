"""A real vLLM server for tests."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 300
STOP_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `url` is the base URL for clients."""

    url: str
    model: str
    process: subprocess.Popen[bytes]

    def metric(self, name: str) -> int:
        """One of vLLM's own counters, such as `vllm:generation_tokens_total`, summed over its labels."""
        lines = httpx.get(self.url.removesuffix("/v1") + "/metrics").text.splitlines()
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{")))

    def stop(self) -> None:
        """End the server as Ctrl-C does: killed, it would leave its segments in /dev/shm."""
        self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kills the server at once, with the processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def vllm_server(model: Path, log: Path, *options: str) -> Iterator[Server]:
    """Serves a model in float32 on a free port of 127.0.0.1. The server's output goes to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--block-size", "32"]
    command += ["--max-num-batched-tokens", "4096", "--enable-prompt-tokens-details", *options]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # vLLM leaves its sockets there; their names may have 107 letters
    temporary = tempfile.TemporaryDirectory(prefix="vllm-")
    settings["TMPDIR"] = temporary.name
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | settings, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}/v1", str(model), process)
    try:
        _wait_until_ready(server, log)
        yield server
    finally:
        server.stop()
        temporary.cleanup()


def _wait_until_ready(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{server.url}/models").raise_for_status()
        except httpx.HTTPError:
            if server.process.poll() is not None:
                break
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the vLLM server did not start; the end of its log:\n{log.read_text()[-2000:]}")
