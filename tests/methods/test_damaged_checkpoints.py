"""Damaged values in checkpoints: every reader names the entry in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from ltr.errors import CheckpointError
from ltr.methods.core.checkpoint import describe, load_network, network_checkpoint, read_checkpoint
from ltr.runs.stages import _read_arrays
from ltr.runs.training.state import read_training_state
from resuming import same_bits, signal_at

QUICK = ("trainer.max_epochs=1", "trainer.precision=fp32", "trainer.accelerator=cpu", "trainer.limit_train_batches=1")
FIRST = "backbone.stages.0.0.weight"
DEEP = "[" * 3000 + "]" * 3000

# of the description: where, what stands there then (... deletes it), and a part of the message
DESCRIPTIONS: list[tuple[str, object]] = [
    *((name, value) for name in ("module", "role") for value in (..., 5, "", None, ["a"])),
    *((name, value) for name in ("settings", "facts", "options", "dataset") for value in (..., 5, [], "a", None)),
    *(("seed", value) for value in (..., -1, "0", 1.5, None, True)),
    *((f"settings.{name}", value) for name in ("backbone", "head", "loss") for value in (..., [], "a", None, {})),
    *(("settings.epochs", value) for value in (..., -1, "1")),
    *(("settings.batch_size", value) for value in (-5, 2.5)),
    ("settings.accumulate", 0),
    ("settings.gradient_clip", "high"),
    ("settings.extras", {}),
    ("settings.unheard_of", 1),
    *(("facts.image_shape", value) for value in (..., [1, -8, 8], [1, 8], [1, 8, "8"], 8, [0, 8, 8], [1, 8, 10**9])),
    *(("facts.mean", value) for value in (..., [], ["a"], [0.1, 0.2], 0.5, [None])),
    *(("facts.std", value) for value in (..., [0], [-1], [[1]])),
    *(("facts.class_names", value) for value in (..., [], "abc", [1] * 10, ["a"])),
    *(("facts.class_counts", value) for value in (..., [-1] * 10, [1.5] * 10, [1, 2], {})),
    *((f"dataset.{name}", value) for name in ("name", "image_size", "source", "mean") for value in (["x"], "", -4)),
    ("facts.image_resize", -3),
    ("facts.protocols", "closed_set"),
    ("facts.background", 99),
    ("facts.unheard_of", 1),
]
# of the file beside the description
VALUES: dict[str, object] = {
    "format": "other",
    "version": "1",
    "state_dict": [],
    "description": 5,
}
# of one tensor
TENSORS = {
    "a text": lambda t: "x",
    "a number": lambda t: 5,
    "nothing": lambda t: None,
    "a list": lambda t: t.tolist(),
    "int8": lambda t: t.to(torch.int8),
    "int64": lambda t: t.long(),
    "bool": lambda t: t > 0,
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "NaN": lambda t: torch.full_like(t, torch.nan),
    "infinite": lambda t: t / 0,
    "another shape": lambda t: t[:1],
    "no dimension": lambda t: t.sum(),
    "empty": lambda t: t[:0],
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    from ltr.configuration.configs import read_config, without_private
    from ltr.methods.core.network import ImageClassifier
    from ltr.methods.core.settings import DatasetInfo, Settings
    from ltr.methods.core.stage import NetworkSpec

    def config(name: str) -> dict:
        return without_private(read_config(name))

    settings = Settings(
        **{name: {} for name in ("sampler", "augment", "optimizer", "scheduler")},
        loss=config("loss/cross_entropy"),
        head=config("head/linear"),
        backbone=config("backbone/digits_net"),
        epochs=1,
        batch_size=8,
        precision="fp32",
        selection="last",
    )
    dataset_info = DatasetInfo((1, 8, 8), (0.5,), (0.5,), tuple("abcdefghij"), tuple(range(1, 11)))
    network = ImageClassifier(NetworkSpec(settings, dataset_info, 0, "erm"))
    path = tmp_path_factory.mktemp("checkpoint") / "final.ckpt"
    torch.save(network_checkpoint(network, {"name": "digits"}), path)
    return path


def changed(content: dict, where: str, value: object) -> dict:
    description = json.loads(content["description"])
    *parents, last = where.split(".")
    index = description
    for parent in parents:
        index = index[parent]
    index[last] = value
    if value is ...:
        del index[last]
    return {**content, "description": json.dumps(description)}


def refusal(content: object, folder: Path) -> str:
    torch.save(content, folder / "damaged.ckpt")
    with pytest.raises(CheckpointError) as refused:
        load_network(folder / "damaged.ckpt")
    message = str(refused.value)
    assert message.startswith((str(folder), f"'{folder}"))
    assert message.isprintable()
    assert len(message) < 600
    return message


def test_an_undamaged_checkpoint_is_read(checkpoint):
    weights = describe(checkpoint)["state_dict"]
    assert same_bits(load_network(checkpoint).state_dict(), weights)


@pytest.mark.parametrize(("where", "value"), DESCRIPTIONS, ids=str)
def test_a_damaged_description_is_reported_by_its_entry(checkpoint, tmp_path, where, value):
    message = refusal(changed(read_checkpoint(checkpoint), where, value), tmp_path)
    assert where.rpartition(".")[2] in message


@pytest.mark.parametrize("value", [DEEP, "", "[1]", "{", "null"])
def test_a_description_that_is_not_a_mapping_is_reported(checkpoint, tmp_path, value):
    assert "description" in refusal({**read_checkpoint(checkpoint), "description": value}, tmp_path)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("deleted", [True, False])
def test_a_damaged_file_is_reported(checkpoint, tmp_path, name, deleted):
    content = {**read_checkpoint(checkpoint), name: VALUES[name]}
    if deleted:
        del content[name]
    refusal(content, tmp_path)


@pytest.mark.parametrize("version", [True, 0, -1, 1.0, 10**30])
def test_a_version_that_was_never_written_is_refused(checkpoint, tmp_path, version):
    refusal({**read_checkpoint(checkpoint), "version": version}, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", TENSORS)
def test_a_damaged_tensor_is_reported_by_its_name(checkpoint, tmp_path, what):
    content = read_checkpoint(checkpoint)
    name = next(name for name, tensor in content["state_dict"].items() if tensor.ndim == 4)
    weights = {**content["state_dict"], name: TENSORS[what](content["state_dict"][name])}
    assert name in refusal({**content, "state_dict": weights}, tmp_path)


@pytest.mark.parametrize("name", [5, None, (1, 2), "", "backbone.\x1b[31mred"])
def test_an_unknown_name_is_reported(checkpoint, tmp_path, name):
    content = read_checkpoint(checkpoint)
    weights = {**content["state_dict"], name: torch.zeros(1)}
    refusal({**content, "state_dict": weights}, tmp_path)


def test_only_a_batch_counter_may_be_missing(checkpoint, tmp_path):
    content = read_checkpoint(checkpoint)
    weights = dict(content["state_dict"])
    weights.pop("head.weight")
    assert "head.weight" in refusal({**content, "state_dict": weights}, tmp_path)


@pytest.mark.parametrize("content", [[], 5, "text", {}, {"state_dict": 1}], ids=str)
def test_a_changed_content_is_reported(tmp_path, content):
    refusal(content, tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", bytes(100)])
def test_damaged_arrays_are_reported(tmp_path, content):
    (tmp_path / "arrays.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match="the arrays cannot be read"):
        _read_arrays(tmp_path / "arrays.npz")


# -- through the commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(ltr_train, monkeypatch, tmp_path):
    """The state of a training that was stopped in its second epoch, and the command that resumes it."""
    arguments = (*QUICK, "trainer.max_epochs=2")
    with signal_at(monkeypatch, (0, 0)):
        assert ltr_train(*arguments).code == 128 + 15
    (state,) = (tmp_path / "outputs").glob("stages/*/state/last.ckpt")
    return state, lambda: ltr_train(*arguments)


STATES = {
    "no loops": lambda state: state.pop("loops"),
    "a negative epoch": lambda state: state["loops"]["fit_loop"]["epoch_progress"]["current"].update(processed=-1),
    "no optimiser": lambda state: state.update(optimizer_states=[]),
    "an optimiser of nothing": lambda state: state.update(optimizer_states=[{}]),
    "a step of text": lambda state: state.update(global_step="x"),
    "weights of text": lambda state: state["state_dict"].update({next(iter(state["state_dict"])): "x"}),
    "whole weights": lambda state: state.update(state_dict={n: t.long() for n, t in state["state_dict"].items()}),
    "no weights": lambda state: state.update(state_dict={}),
}


def test_a_damaged_training_state_is_reported_and_set_aside(stopped):
    path, goes_on = stopped
    whole = read_checkpoint(path)
    network = torch.nn.Module()
    network.state_dict = lambda: whole["state_dict"]  # type: ignore[method-assign]
    for damage in STATES.values():
        state = copy.deepcopy(whole)
        damage(state)
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=r"last\.ckpt"):
            read_training_state(path, network)
    done = goes_on()
    assert done.code == 0, done.err
    assert "set aside" in done.out


def test_a_state_that_its_optimiser_cannot_load_ends_in_one_line(stopped):
    path, goes_on = stopped
    state = read_checkpoint(path)
    state["optimizer_states"][0]["param_groups"] = []
    torch.save(state, path)
    done = goes_on()
    assert done.code == 1
    assert "cannot be restored" in done.err
    assert "resume=never" in done.err
    assert "Traceback" not in done.err


def test_commands_name_the_damaged_entry(ltr_train, ltr_eval, tmp_path, capsys):
    from ltr.cli import run_guarded
    from ltr.commands.export import main as export
    from ltr.commands.mine import main as mine
    from ltr.commands.predict import main as predict

    done = ltr_train(*QUICK)
    content = read_checkpoint(done.directory / "checkpoints" / "final.ckpt")
    name = next(name for name, tensor in content["state_dict"].items() if tensor.ndim == 4)
    weights = {**content["state_dict"], name: content["state_dict"][name].to(torch.complex64)}
    path = tmp_path / "damaged.ckpt"
    torch.save({**content, "state_dict": weights}, path)
    (tmp_path / "pictures").mkdir()
    commands = [
        lambda: ltr_eval(path),
        lambda: (run_guarded(lambda: predict([str(path), str(tmp_path / "pictures")])), *capsys.readouterr()),
        lambda: (run_guarded(lambda: export([str(path), "--out", str(tmp_path / "e")])), *capsys.readouterr()),
        lambda: (
            run_guarded(lambda: mine([str(path), str(tmp_path / "pictures"), "--out", str(tmp_path / "m")])),
            *capsys.readouterr(),
        ),
    ]
    for command in commands:
        code, _, err = command()
        assert code in (1, 2), err
        assert "Traceback" not in err
        assert "not a mistake" not in err
    for more in (f"method.start_from={path}", f"backbone.weights={path}"):
        refused = ltr_train(*QUICK, *(("method=crt",) if "start_from" in more else ()), more)
        assert refused.code in (1, 2)
        assert name.removeprefix("backbone.") in refused.err
        assert "not a mistake" not in refused.err
