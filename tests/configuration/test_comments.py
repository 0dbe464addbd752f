"""Comments of config files: the opening one, and one for each key."""

from __future__ import annotations

from ltr.configuration.comments import comments_of

TEXT = """\
# @package _global_
# What it is.
# More of it.
first: 1  # behind
# above,
# in two lines
second: "a # b"
third: 3      # begins behind
              # and goes on
# lost: a list follows
- entry
node:  # of the node
  inner: x#y  # inside
  other: 2
last: 4
"""


def test_the_opening_comment_is_without_the_package_line():
    assert comments_of(TEXT)[0] == ["What it is.", "More of it."]


def test_each_key_has_the_comment_behind_it_or_above_it():
    assert comments_of(TEXT)[1] == {
        "first": "behind",
        "second": "above, in two lines",
        "third": "begins behind and goes on",
        "node": "of the node",
        "node.inner": "inside",
    }


def test_a_blank_line_ends_the_opening_comment():
    opening, comments = comments_of("# What it is.\n\n# of the key\nkey: 1\n")
    assert (opening, comments) == (["What it is."], {"key": "of the key"})
