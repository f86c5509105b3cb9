"""What a model cannot serve. The whole is in the tests of each package."""

import pytest

import detloss
from detloss.integrations.checks import check_background, check_coder, check_levels, check_parts


def test_options_of_a_coder_that_nobody_compares_may_differ():
    criterion = detloss.load_config("retinanet")
    check_coder(criterion, {"type": "delta"})
    with pytest.raises(ValueError, match=r"decodes with, {type: delta, weights: \[10.0, .*, got"):
        check_coder(criterion, {"type": "delta", "weights": [10.0, 10.0, 5.0, 5.0]})


@pytest.mark.parametrize(("config", "column"), [("retinanet", True), ("ssd", False)])
def test_a_column_for_background(config, column):
    criterion = detloss.load_config(config)
    check_background(criterion, column=not column)
    words = f"a classification loss {'with' if column else 'without'} a background column, got"
    with pytest.raises(ValueError, match=words):
        check_background(criterion, column=column)


def test_what_a_quality_looks_at_is_needed_too():
    config = detloss.load_config("fcos").config()
    criterion = detloss.build({**config, "box": {"type": "giou", "weigh_by": "confidence"}})
    check_parts(criterion, "this", ["class_logits", "box_regression", "centerness"])
    with pytest.raises(ValueError, match="those of this, 'box_.*; its term '.*' needs 'class_log"):
        check_parts(criterion, "this", ["box_regression", "centerness"])


def test_the_number_of_levels():
    config = detloss.load_config("retinanet").config()
    box = {"type": "l1", "level_weights": [1.0, 2.0]}
    criterion = detloss.build({**config, "box": box})
    check_levels(criterion, 2)
    with pytest.raises(ValueError, match=r"must have 3 level_weights, .*, got box: \[1.0, 2.0\]"):
        check_levels(criterion, 3)
