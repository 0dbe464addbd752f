"""Pixels that jobs of a sweep share."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ltr.data.source import Source
from ltr.errors import DataError
from ltr.local_jobs.sources import READ, WAIT, KeptSources, SharedSource, SourceReader
from ltr.runs.pixels import copy_to_memory_file


def source() -> Source:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 1), dtype=np.uint8)
    return Source(
        "made up", images, np.array([0, 1, 1, 0, 1]), ("a", "b"), {"train": range(5)}, taxonomy={"x": ["c", "d"]}
    )


def shared() -> tuple[SharedSource, int]:
    file = copy_to_memory_file(source().images)
    return SharedSource.of(source(), file), file


def test_a_shared_source_is_the_same_source_with_read_only_pixels():
    one, file = shared()
    opened, expected = one.open(), source()
    os.close(file)
    np.testing.assert_array_equal(opened.images, expected.images)
    np.testing.assert_array_equal(opened.labels, expected.labels)
    assert opened.fingerprint == expected.fingerprint
    assert (opened.class_names, opened.parts, opened.taxonomy) == (
        expected.class_names, expected.parts, expected.taxonomy,
    )  # fmt: skip
    assert not opened.images.flags.writeable
    assert not opened.labels.flags.writeable


def test_one_job_reads_and_the_others_wait_for_its_pixels():
    kept = KeptSources()
    assert [kept.wanted("cifar", job) for job in (0, 1, 2)] == [READ, WAIT, WAIT]
    assert kept.wanted("other", 3) == READ
    one, file = shared()
    of_parent, answers = kept.read("cifar", one)
    os.close(file)  # the first job has ended
    assert set(answers) == {1, 2}
    np.testing.assert_array_equal(answers[1].open().images, source().images)
    assert kept.wanted("cifar", 4) == of_parent
    kept.close()
    with pytest.raises(OSError):
        of_parent.open()


def test_if_the_reading_job_ends_another_one_reads():
    kept = KeptSources()
    assert [kept.wanted("cifar", job) for job in (0, 1, 2, 3)] == [READ, WAIT, WAIT, WAIT]
    assert kept.ended(1) == {}
    assert kept.ended(0) == {2: READ}
    assert kept.ended(2) == {3: READ}


def test_sources_that_cannot_be_shared_are_read_by_each_job():
    kept = KeptSources()
    assert [kept.wanted("files", job) for job in (0, 1)] == [READ, WAIT]
    assert kept.read("files", None) == (None, {1: READ})
    assert kept.wanted("files", 2) == READ


def test_if_reading_fails_in_one_job_the_others_read():
    messages = []

    def ask(*message):
        messages.append(message)
        return READ if message[0] == "source" else None

    def read(config):
        raise DataError("no such folder")

    with pytest.raises(DataError, match="no such folder"):
        SourceReader(ask, read)({"root": "x"})
    assert messages[-1] == ("have source", '{"root":"x"}', None)
