"""That the planted bugs still have their places: planting them all takes minutes, this does not."""

from mutations import BUGS, ROOT, astray, bugs_of


def test_every_bug_has_its_place():
    assert not astray(ROOT, bugs_of(BUGS))


def test_a_bug_without_its_place_is_named():
    (bug,) = bugs_of("kernels/blocks.py tests\n\nR1 gone\n- no such line\n+ pass")
    assert astray(ROOT, [bug]) == [
        "gone: 'no such line' occurs 0 times in detloss/kernels/blocks.py, not once"
    ]
