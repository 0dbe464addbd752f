"""The description in a checkpoint: every field that is written is known to the check that reads it."""

from __future__ import annotations

from ltr.methods.core import description
from ltr.methods.core.settings import DatasetInfo, Settings


def test_every_field_of_a_description_has_a_check():
    assert set(DatasetInfo.__dataclass_fields__) == set(description._DATASET_INFO)
    assert set(Settings.__dataclass_fields__) == set(description._SETTINGS)
