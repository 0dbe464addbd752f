"""Two agents of torchrun on loopback, as on two machines: the numbers of one process, and restarts that go on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from resuming import same_bits, weights

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
PATIENCE = 600.0  # seconds; a busy machine takes minutes to import torch four times
RUN = (
    *("strategy=ddp", "backbone=plain", "batch_size=50", "trainer.max_epochs=8", "trainer.accelerator=cpu"),
    *("trainer.precision=fp32", "figures=none", "checkpoint.every_minutes=1e-6"),
)


class Agents:
    """The agents of a run that writes into ``folder / "outputs"``."""

    def __init__(self, folder: Path, configs: Path, port: int) -> None:
        self.folder, self.configs, self.port = folder, configs, port
        self.running: list[subprocess.Popen] = []

    def start(self) -> subprocess.Popen:
        """One more agent, the first of which is where they meet."""
        options = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{self.port}"]
        options += ["--rdzv-id=ltr", "--local-addr=127.0.0.1", "--max-restarts=3", "-m", "ltr.cli"]
        options += [f"--config-dir={self.configs}", *RUN, f"paths.outputs={self.folder / 'outputs'}"]
        self.folder.mkdir(exist_ok=True)
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "LTR_ALLOW": "plain_network"}
        # torch 2.15 tells an agent that joins later not where the others' store is, see docs/reliability.md
        more |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with open(self.folder / "log", "a") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *options],
                env={**os.environ, **more},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.running.append(agent)
        return agent

    def wait_for(self, happened: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < until, self.message
            time.sleep(0.01)

    def in_the_middle(self) -> None:
        """Wait until the run has saved a state in the middle of an epoch."""
        self.wait_for(lambda: bool(list((self.folder / "outputs").glob("stages/*/state/previous.ckpt"))))

    def ended(self) -> list[int]:
        """Exit codes of the agents that were not killed."""
        self.wait_for(lambda: all(agent.poll() is not None for agent in self.running))
        return [agent.returncode for agent in self.running if agent.returncode != -signal.SIGKILL]

    @property
    def message(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def directory(self) -> Path:
        (path,) = (self.folder / "outputs").glob("*/*/*/result.json")
        return path.parent

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return weights(self.directory)

    @property
    def rows(self) -> list[dict]:
        return json.loads((self.directory / "result.json").read_text())["rows"]


def workers_of(agent: subprocess.Popen) -> list[int]:
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    return [int(number) for number in children.read_text().split()]


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


@pytest.fixture(scope="module")
def agents(tmp_path_factory) -> Iterator[Callable[[str], Agents]]:
    """A maker of agents by the name of their folder; what still runs in the end is killed."""
    folder = tmp_path_factory.mktemp("nodes")
    config = folder / "configs" / "backbone" / "plain.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("_target_: plain_network.PlainNet\ndropout: 0.0\n")
    made: list[Agents] = []

    def make(name: str) -> Agents:
        try:
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
        except OSError as error:
            pytest.skip(f"nothing can listen on 127.0.0.1: {error}")
        made.append(Agents(folder / name, config.parents[1], port))
        return made[-1]

    yield make
    for agent in (agent for some in made for agent in some.running if agent.poll() is None):
        for process in [*workers_of(agent), agent.pid]:
            kill(process)
        agent.wait()


@pytest.fixture(scope="module")
def undisturbed(agents) -> Agents:
    run = agents("undisturbed")
    run.start()
    run.start()
    assert run.ended() == [0, 0], run.message
    return run


def test_two_nodes_give_the_weights_of_one_process(undisturbed, ltr_train, ltr_eval, monkeypatch, tmp_path):
    assert "2 processes" in undisturbed.message
    monkeypatch.setenv("LTR_ALLOW", "plain_network")
    alone = ltr_train(f"--config-dir={undisturbed.configs}", *RUN, "strategy=single")
    assert alone.code == 0, alone.err
    actual = weights(alone.directory)
    for name, tensor in undisturbed.weights.items():
        torch.testing.assert_close(tensor, actual[name], rtol=1e-4, atol=1e-5)
    # the same weights, evaluated by one process: every image once
    assert ltr_eval(undisturbed.directory, "--json", tmp_path / "again.json")[0] == 0
    evaluated = json.loads((tmp_path / "again.json").read_text())["rows"][0]["metrics"]
    (row,) = undisturbed.rows
    for name, value in row["metrics"].items():
        assert value == (pytest.approx(evaluated[name], rel=1e-6) if name in ("nll", "ece") else evaluated[name]), name


def test_a_run_whose_worker_dies_is_restarted_and_gives_the_same_weights(agents, undisturbed):
    run = agents("worker")
    run.start()
    other = run.start()
    run.in_the_middle()
    for worker in workers_of(other):
        kill(worker)
    assert run.ended() == [0, 0], run.message
    _ends_as(run, undisturbed)


def test_a_run_with_a_restarted_agent_gives_the_same_weights(agents, undisturbed):
    run = agents("agent")
    run.start()
    run.wait_for(lambda: _listens(run.port))  # or the other one might become the place where they meet
    other = run.start()
    run.in_the_middle()
    for process in [other.pid, *workers_of(other)]:
        kill(process)
    other.wait()
    run.start()
    assert run.ended() == [0, 0], run.message
    _ends_as(run, undisturbed)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _ends_as(run: Agents, undisturbed: Agents) -> None:
    assert "resuming in epoch" in run.message
    assert same_bits(run.weights, undisturbed.weights)
    assert run.rows == undisturbed.rows
