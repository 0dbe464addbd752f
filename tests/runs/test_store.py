"""The stage store: finished means whole, damaged means set aside, locked means one at a time."""

import multiprocessing
import os
import time

import pytest
import torch

from ltr.errors import LtrError
from ltr.methods.core.checkpoint import read_checkpoint, write_checkpoint
from ltr.runs.store import StageStore

KEY = "k" * 64


@pytest.fixture
def messages():
    return []


@pytest.fixture
def store(tmp_path, messages):
    return StageStore(tmp_path / "stages", messages.append)


def finish(store, content=b"weights"):
    folder = store.folder(KEY)
    (folder / "state").mkdir(parents=True)
    (folder / "weights.ckpt").write_bytes(content)
    store.finish(KEY, {"seed": 0}, 1.5)


def test_an_unfinished_stage_has_no_record(store):
    store.folder(KEY).mkdir(parents=True)
    (store.folder(KEY) / "weights.ckpt").write_bytes(b"half")
    assert store.record(KEY) is None


def test_a_finished_stage_has_its_record_and_no_training_state(store):
    finish(store)
    assert store.record(KEY)["seconds"] == 1.5
    assert not (store.folder(KEY) / "state").exists()


@pytest.mark.parametrize("damage", ["changed", "missing", "record"])
def test_a_damaged_stage_is_set_aside_with_a_message(store, messages, damage):
    finish(store)
    if damage == "changed":
        (store.folder(KEY) / "weights.ckpt").write_bytes(b"weighty")
    elif damage == "missing":
        (store.folder(KEY) / "weights.ckpt").unlink()
    else:
        (store.folder(KEY) / "stage.json").write_text('{"key": ')
    assert store.record(KEY) is None
    assert not store.folder(KEY).exists()
    assert "damaged" in messages[0]
    assert len(list(store.root.glob("damaged-*"))) == 1


def _hold(root, seconds, ready):
    with StageStore(root).locked(KEY, "representation"):
        ready.set()
        time.sleep(seconds)


def test_a_second_run_waits_for_the_first_with_a_message(store, messages):
    ready = multiprocessing.get_context("fork").Event()
    other = multiprocessing.get_context("fork").Process(target=_hold, args=(store.root, 0.5, ready))
    other.start()
    assert ready.wait(120)
    with store.locked(KEY, "representation"):
        assert not other.is_alive() or other.exitcode is None
    other.join()
    assert "waiting for stage 'representation'" in messages[0]


def test_the_lock_of_a_killed_run_is_free(store):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_hold, args=(store.root, 60, ready))
    other.start()
    assert ready.wait(120)
    other.kill()
    other.join()
    started = time.monotonic()
    with store.locked(KEY, "representation"):
        assert time.monotonic() - started < 30  # and not the 60 for which it would have held it


def _write_for_ever(root, ready):
    store = StageStore(root)
    for number in range(10_000):
        key = f"{number:064d}"
        with store.locked(key, "stage"):
            write_checkpoint(store.folder(key) / "weights.ckpt", {"weights": torch.full((250_000,), float(number))})
            store.finish(key, {"seed": number}, 0.0)
        if number == 2:
            ready.set()


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.029])
def test_a_run_that_is_killed_while_it_writes_leaves_only_whole_stages(store, messages, delay):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_write_for_ever, args=(store.root, ready))
    other.start()
    assert ready.wait(120)
    time.sleep(delay)
    other.kill()
    other.join()
    keys = sorted(path.name for path in store.root.iterdir() if path.is_dir())
    records = [store.record(key) for key in keys]
    assert messages == []  # none is damaged: what is not whole is not finished
    assert all(record is not None for record in records[:-1])
    for key, record in zip(keys, records):
        if record is not None:
            weights = read_checkpoint(store.folder(key) / "weights.ckpt")["weights"]
            assert float(weights[0]) == float(weights[-1]) == float(key)


def test_a_read_only_store_is_a_readable_error(tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages").chmod(0o500)
    if os.access(tmp_path / "stages", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(LtrError, match=r"paths\.stages"), StageStore(tmp_path / "stages").locked(KEY, "x"):
        pass


def test_an_unwritable_store_is_a_readable_error(tmp_path):
    (tmp_path / "stages").write_text("a file, not a folder")
    with pytest.raises(LtrError, match=r"paths\.stages"), StageStore(tmp_path / "stages").locked(KEY, "x"):
        pass
