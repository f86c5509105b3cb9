"""A criterion inside torchvision's RetinaNet."""

import copy
import gc
import io
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close
from torchvision.models.detection import RetinaNet
from vision_models import CLASSES, retinanet

import detloss
from detloss.integrations.torchvision import (
    detection_loss,
    prior_bias,
    restore_loss,
    use_loss,
)
from detloss.matchers import Matcher, MaxIoUMatcher
from detloss.registry import NORMALIZERS, TERMS

CONFIGS = Path(__file__).parents[2] / "configs"
LEVELS = [64, 16]
"""Cells of each pyramid level for an image of 64 pixels."""
ANCHORS = 6
"""At each cell."""
scripting = pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:RetinaNet always returns")
"""For tests of TorchScript, which PyTorch has deprecated."""


@pytest.fixture
def model():
    return retinanet()


def criterion_of(**parts):
    return detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {"type": "sigmoid_focal"},
            "box": {"type": "giou"},
        }
        | parts
    )


def images():
    return [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]


def targets():
    return [
        {"boxes": torch.tensor([[10.0, 10, 30, 34]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]


def assert_same(a, b):
    """Equal to the bit."""
    assert_close(a, b, rtol=0, atol=0)


def seeded(call):
    """What `call` gives, which may draw random numbers (dropout)."""
    torch.manual_seed(3)
    return call()


def in_a_new_process(code):
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


# --- The loss -------------------------------------------------------------------------------------


def random_head_outputs(images, anchors, generator):
    return {
        "cls_logits": (torch.randn(images, anchors, CLASSES, generator=generator) * 3 - 2),
        "bbox_regression": torch.randn(images, anchors, 4, generator=generator),
    }


def random_boxes(count, generator):
    corner = torch.rand(count, 2, generator=generator) * 200
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 60 + 5], dim=-1)


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([4, 9, 1], id="objects everywhere"),
        pytest.param([4, 0, 9], id="an image without objects"),
        pytest.param([0, 0], id="no object at all"),
        pytest.param([40], id="many objects"),
    ],
)
def test_retinanet_yaml_gives_torchvision_s_values_and_gradients(model, counts):
    generator = torch.Generator().manual_seed(len(counts))
    anchors = [random_boxes(2000, generator) for _ in counts]
    truth = [
        {
            "boxes": random_boxes(count, generator),
            "labels": torch.randint(0, CLASSES, (count,), generator=generator),
        }
        for count in counts
    ]
    heads = random_head_outputs(len(counts), 2000, generator)

    theirs = {name: values.clone().requires_grad_() for name, values in heads.items()}
    expected = model.compute_loss(truth, theirs, anchors)
    sum(expected.values()).backward()

    ours = {name: values.clone().requires_grad_() for name, values in heads.items()}
    use_loss(model, detloss.load_config(CONFIGS / "retinanet.yaml"))
    terms = model.compute_loss(truth, ours, anchors)
    sum(terms.values()).backward()

    exact = {"rtol": 1e-5, "atol": 0}
    assert_close(terms["classification"], expected["classification"], **exact)
    assert_close(terms["box"], expected["bbox_regression"], **exact)
    for name in heads:
        # an element's float32 error is that of the largest gradients it is computed beside
        scale = theirs[name].grad.abs().max()
        assert_close(ours[name].grad, theirs[name].grad, rtol=1e-5, atol=1e-6 * float(scale))


@pytest.mark.parametrize("name", ["retinanet", "retinanet_giou", "retinanet_ciou"])
def test_a_training_step_returns_the_terms(model, name):
    use_loss(model, detloss.load_config(CONFIGS / f"{name}.yaml")).train()
    terms = model(images(), targets())
    assert list(terms) == ["classification", "box"]
    sum(terms.values()).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_prior_bias_starts_every_class_at_pi():
    assert_close(torch.tensor(prior_bias(0.01)).sigmoid(), torch.tensor(0.01))


@pytest.mark.parametrize("pi", [0.0, 1.0, -0.1])
def test_prior_bias_outside_its_range(pi):
    with pytest.raises(ValueError, match=rf"pi must be in \(0, 1\), got {pi}"):
        prior_bias(pi)


# --- model.criterion ------------------------------------------------------------------------------


def test_an_assigned_criterion_is_used_from_then_on(model):
    use_loss(model, detloss.load_config("retinanet_giou")).train()
    other = detloss.load_config("retinanet_ciou")
    second = use_loss(copy.deepcopy(model), copy.deepcopy(other))
    expected = seeded(lambda: second(images(), targets()))
    before = seeded(lambda: model(images(), targets()))
    model.criterion = other
    after = seeded(lambda: model(images(), targets()))
    assert_same(after, expected)
    assert not torch.equal(before["box"], after["box"])


@pytest.mark.parametrize("training", [True, False])
def test_a_criterion_takes_the_mode_of_the_model(model, training):
    use_loss(model.train(training), criterion_of(normalizer={"type": "moving_average"}))
    assert model.criterion.normalizer.training == training
    model.criterion = criterion_of(normalizer={"type": "moving_average"}).train(not training)
    assert model.criterion.normalizer.training == training


def test_use_loss_again_takes_the_other_criterion(model):
    use_loss(model, detloss.load_config("retinanet_giou"))
    other = detloss.load_config("retinanet_ciou")
    assert use_loss(model, other) is model
    assert model.criterion is other
    assert type(restore_loss(model)) is RetinaNet


def test_an_assigned_criterion_that_does_not_fit_is_refused_and_the_old_one_stays(model):
    criterion = detloss.load_config("retinanet")
    use_loss(model, criterion)
    with pytest.raises(ValueError, match="weights: .* got .*10.0"):
        model.criterion = criterion_of(coder={"type": "delta", "weights": [10, 10, 5, 5]})
    with pytest.raises(TypeError, match="must be a DetectorLoss, .*, got NoneType"):
        model.criterion = None
    assert model.criterion is criterion


def deep_copy(model):
    return copy.deepcopy(model)


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def averaged(model):
    return AveragedModel(model).module


@pytest.mark.parametrize("copied_by", [deep_copy, saved_and_loaded, averaged])
@pytest.mark.parametrize("cls", [RetinaNet, type("Mine", (RetinaNet,), {})], ids=["", "subclass"])
def test_a_copy_uses_the_criterion_that_was_copied_with_it(copied_by, cls, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "Mine", cls, raising=False)  # as pickle asks
    cls.__module__ = __name__ if cls is not RetinaNet else cls.__module__
    model = use_loss(retinanet(cls), detloss.load_config("retinanet_giou")).train()
    expected = seeded(lambda: model(images(), targets()))
    other = copied_by(model)
    assert isinstance(other, cls)
    assert other.criterion is not model.criterion
    assert_same(seeded(lambda: other(images(), targets())), expected)

    other.criterion.terms["box"].weight = 0.0
    assert seeded(lambda: other(images(), targets()))["box"] == 0
    assert_same(seeded(lambda: model(images(), targets())), expected)
    restored = restore_loss(other)
    assert type(restored) is cls
    assert "bbox_regression" in restored(images(), targets())


def test_a_saved_model_is_loaded_by_a_process_that_has_imported_nothing(model, tmp_path):
    use_loss(model, detloss.load_config("retinanet"))
    torch.save(model, tmp_path / "model.pt")
    lines = in_a_new_process(
        "import sys, torch\n"
        f"sys.path.append({str(Path(__file__).parents[1])!r})  # where the backbone is\n"
        f"model = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
        "target = {'boxes': torch.tensor([[8.0, 8, 40, 40]]), 'labels': torch.tensor([1])}\n"
        "print(*model([torch.rand(3, 64, 64)], [target]))"
    )
    assert lines == ["classification", "box"]


@pytest.mark.parametrize("name", ["positives", "moving_average"])
def test_the_criterion_is_a_part_of_the_model(model, name):
    """Moved, saved and switched to evaluation with it; only a running number is saved."""
    saved = model.state_dict().keys()
    model = use_loss(copy.deepcopy(model), criterion_of(normalizer={"type": name}))
    added = {"criterion.normalizer.average"} if name == "moving_average" else set()
    assert model.state_dict().keys() - saved == added
    assert not model.eval().criterion.normalizer.training
    assert model.train().criterion.normalizer.training
    assert all(values.is_meta for values in model.to("meta").criterion.buffers())


def test_a_checkpoint_saved_before_use_loss_loads_strictly(model):
    checkpoint = model.state_dict()
    criterion = criterion_of(normalizer={"type": "moving_average", "initial": 7.0})
    use_loss(model, criterion)
    model.load_state_dict(checkpoint, strict=True)
    assert criterion.normalizer.average == 7


def test_a_checkpoint_saved_after_use_loss_names_the_key_that_a_plain_model_lacks(model):
    criterion = criterion_of(normalizer={"type": "moving_average"})
    checkpoint = use_loss(copy.deepcopy(model), criterion).state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected key.*criterion\.normalizer\.average"):
        model.load_state_dict(checkpoint)


def test_a_model_in_half_precision_trains(model):
    use_loss(model, detloss.load_config("retinanet")).eval()
    batch = images()
    expected = detection_loss(model, batch, targets())
    model.to(torch.bfloat16)
    output = detection_loss(model, [image.bfloat16() for image in batch], targets())
    assert_close(output.total, expected.total, rtol=0.02, atol=0)
    output.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


# --- model.loss_output ----------------------------------------------------------------------------


def test_the_output_of_the_last_loss_can_be_had(model):
    criterion = criterion_of(box={"type": "giou", "weight": 2.0})
    use_loss(model, criterion).train()
    assert model.loss_output is None
    terms = model(images(), targets())
    output = model.loss_output
    assert_same(output.terms, {name: term.detach() for name, term in terms.items()})
    assert_same(output.total, sum(terms.values()).detach())
    assert_same(output.unweighted["box"] * 2, output.terms["box"])
    positives = sum(int(match.positive.sum()) for match in output.matches)
    assert positives > 0
    assert output.divisors["box"] == positives
    model(images(), targets())
    assert model.loss_output is not output


def test_the_output_keeps_no_graph(model):
    use_loss(model, detloss.load_config("retinanet")).train()
    model(images(), targets())
    output = model.loss_output
    tensors = [output.total, *output.terms.values(), *output.unweighted.values()]
    tensors += [*output.divisors.values(), *(match.positive for match in output.matches)]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_a_caller_who_changes_the_terms_does_not_change_the_output(model):
    use_loss(model, detloss.load_config("retinanet")).train()
    model(images(), targets()).clear()
    assert list(model.loss_output.terms) == ["classification", "box"]


@pytest.mark.parametrize("copied_by", [deep_copy, saved_and_loaded, averaged])
def test_the_output_is_not_copied_or_saved(model, copied_by):
    use_loss(model, detloss.load_config("retinanet")).train()
    model(images(), targets())
    assert copied_by(model).loss_output is None
    assert not any("loss_output" in key for key in model.state_dict())


def test_a_model_is_freed_without_the_garbage_collector(model):
    use_loss(model, detloss.load_config("retinanet")).train()
    sum(model(images(), targets()).values()).backward()
    second = copy.deepcopy(model)
    second(images(), targets())
    alive = weakref.ref(second)
    gc.disable()
    try:
        del second
        assert alive() is None
    finally:
        gc.enable()


def test_in_distributed_data_parallel(model, tmp_path):
    use_loss(model, detloss.load_config("retinanet_giou")).train()
    expected = seeded(lambda: copy.deepcopy(model)(images(), targets()))
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    try:
        parallel = DistributedDataParallel(model)
        terms = seeded(lambda: parallel(images(), targets()))
        sum(terms.values()).backward()
        assert_same(terms, expected)
        assert_same(model.loss_output.terms, {name: t.detach() for name, t in terms.items()})
        model.criterion = detloss.load_config("retinanet_ciou")
        assert not torch.equal(parallel(images(), targets())["box"], terms["box"])
    finally:
        distributed.destroy_process_group()


# --- Validation loss ------------------------------------------------------------------------------


def test_the_validation_loss_leaves_batch_norm_dropout_and_a_memory_alone(model):
    criterion = criterion_of(normalizer={"type": "moving_average"})
    use_loss(model, criterion).train()
    model(images(), targets())
    model.eval()
    before = copy.deepcopy(model.state_dict())
    batch = images()
    first, second = (detection_loss(model, batch, targets()) for _ in range(2))
    assert_same(first.terms, second.terms)  # no dropout
    assert_same(model.state_dict(), before)
    assert not any(module.training for module in model.modules())


def test_the_validation_loss_is_that_of_the_parts_by_hand(model):
    criterion = detloss.load_config("retinanet")
    use_loss(model, criterion).eval()
    batch = images()
    output = detection_loss(model, batch, targets())

    resized, _ = model.transform(batch)
    features = list(model.backbone(resized.tensors).values())
    heads = model.head(features)
    expected = criterion(
        {"class_logits": heads["cls_logits"], "box_regression": heads["bbox_regression"]},
        targets(),
        anchors=model.anchor_generator(resized, features),
    )
    assert_same(output.terms, expected.terms)
    assert_same(output.total, expected.total)
    assert output.log() == expected.log()
    assert output.total.requires_grad
    with torch.no_grad():
        assert not detection_loss(model, batch, targets()).total.requires_grad


def test_detections_are_as_before_a_validation_loss(model):
    use_loss(model, detloss.load_config("retinanet")).eval()
    batch = images()
    before = model(batch)
    detection_loss(model, batch, targets())
    assert_same(model(batch), before)


def test_the_mode_is_restored_after_an_error(model):
    use_loss(model, detloss.load_config("retinanet")).eval()
    with pytest.raises(ValueError, match="labels"):
        detection_loss(model, images(), [{"boxes": torch.zeros(0, 4)}] * 2)
    assert not model.training


def test_in_training_mode_it_is_the_output_of_the_step(model):
    use_loss(model, detloss.load_config("retinanet")).train()
    output = seeded(lambda: detection_loss(model, images(), targets()))
    terms = seeded(lambda: model(images(), targets()))
    assert_same(output.terms, terms)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("wrong", [retinanet(), nn.Linear(1, 1)], ids=["plain", "another"])
def test_a_validation_loss_of_a_model_without_one(wrong):
    with pytest.raises(TypeError, match="must be one that use_loss has changed, .*, got"):
        detection_loss(wrong, images(), targets())


# --- The way back ---------------------------------------------------------------------------------


def test_restore_loss_is_the_way_back_to_the_bit(model):
    plain = copy.deepcopy(model)
    attributes, parts = set(vars(model)), list(model._modules)
    use_loss(model, criterion_of(normalizer={"type": "moving_average"})).eval()
    detection_loss(model, images(), targets())
    assert restore_loss(model.train()) is model

    assert type(model) is RetinaNet
    assert set(vars(model)) == attributes
    assert list(model._modules) == parts
    assert_same(model.state_dict(), plain.state_dict())
    assert not model.anchor_generator._forward_hooks
    ours = seeded(lambda: model(images(), targets()))
    theirs = seeded(lambda: plain(images(), targets()))
    assert list(ours) == ["classification", "bbox_regression"]
    assert_same(ours, theirs)
    batch = images()
    assert_same(model.eval()(batch), plain.eval()(batch))


def test_restore_loss_leaves_a_plain_model_alone(model):
    assert restore_loss(model) is model
    with pytest.raises(TypeError, match="must be one of torchvision's RetinaNet, .*, got Linear"):
        restore_loss(nn.Linear(1, 1))


def test_restore_loss_of_a_class_that_was_changed_again(model):
    use_loss(model, detloss.load_config("retinanet"))
    model.__class__ = type("Sharded", (type(model),), {})
    with pytest.raises(TypeError, match="the class that use_loss gave it, got Sharded"):
        restore_loss(model)


# --- Pyramid levels -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"matcher": {"type": "atss"}}, id="a matcher"),
        pytest.param({"normalizer": {"type": "anchors", "per": "level"}}, id="a normalizer"),
        pytest.param(
            {"classification": {"type": "sigmoid_focal", "level_weights": [4.0, 1.0]}}, id="weights"
        ),
    ],
)
def test_what_needs_level_sizes_is_told_those_of_the_model(model, parts):
    criterion = criterion_of(**parts)
    use_loss(model, criterion).eval()
    batch = images()
    output = detection_loss(model, batch, targets())
    resized, _ = model.transform(batch)
    features = list(model.backbone(resized.tensors).values())
    heads = model.head(features)
    expected = criterion(
        {"class_logits": heads["cls_logits"], "box_regression": heads["bbox_regression"]},
        targets(),
        anchors=model.anchor_generator(resized, features),
        level_sizes=[cells * ANCHORS for cells in LEVELS],
    )
    assert_same(output.terms, expected.terms)
    assert not model.anchor_generator._forward_hooks


def test_a_loss_outside_the_model_s_call_has_no_level_sizes(model):
    use_loss(model, criterion_of(matcher={"type": "atss"})).train()
    model(images(), targets())
    heads = random_head_outputs(2, 480, torch.Generator())
    with pytest.raises(ValueError, match="matcher atss needs level_sizes, got None"):
        model.compute_loss(targets(), heads, [torch.rand(480, 4)] * 2)


def test_level_weights_of_another_number_of_levels_are_refused(model):
    classification = {"type": "sigmoid_focal", "level_weights": [4.0, 1.0, 0.4]}
    with pytest.raises(ValueError, match=r"2 level_weights, .*, got classification: \[4.0, 1.0, 0"):
        use_loss(model, criterion_of(classification=classification))


# --- What a RetinaNet cannot serve ----------------------------------------------------------------


class FromPredictions(Matcher):
    """Matches as max_iou, and records the predictions that it was given."""

    needs = frozenset({"class_logits", "pred_boxes"})

    def forward(self, anchors, gt_boxes, *, class_logits=None, pred_boxes=None, **others):
        self.seen = class_logits, pred_boxes
        return MaxIoUMatcher()(anchors, gt_boxes, gt_ignore=others["gt_ignore"])


class FromObjectness(FromPredictions):
    needs = frozenset({"objectness"})


def with_matcher(matcher):
    plain = criterion_of()
    return detloss.DetectorLoss(matcher=matcher, terms=list(plain.terms.values()))


def test_a_matcher_is_told_the_predictions(model):
    matcher = FromPredictions()
    use_loss(model, with_matcher(matcher)).train()
    expected = use_loss(copy.deepcopy(model), criterion_of())
    terms = seeded(lambda: model(images(), targets()))
    assert_same(terms, seeded(lambda: expected(images(), targets())))
    logits, boxes = matcher.seen
    assert logits.shape == (480, CLASSES)
    assert boxes.shape == (480, 4)


GIVEN = {"class_logits", "box_regression"}
OTHERS = [name for name in TERMS.names() if TERMS[name].default_reads not in GIVEN]


def assert_not_predicted(model, criterion, needs):
    with pytest.raises(ValueError, match=f"'class_logits' and 'box_regression'; its {needs}$"):
        use_loss(model, criterion)
    assert type(model) is RetinaNet
    assert not hasattr(model, "criterion")


@pytest.mark.parametrize("name", OTHERS)
def test_a_term_of_what_a_retinanet_does_not_predict_is_refused(model, name):
    criterion = criterion_of(**{name: {"type": "sigmoid_cross_entropy"}})
    assert_not_predicted(model, criterion, f"term '{name}' needs '{TERMS[name].default_reads}'")


def test_a_prediction_of_another_name_is_refused(model):
    classification = {"type": "sigmoid_focal", "reads": "auxiliary_logits"}
    criterion = criterion_of(classification=classification)
    assert_not_predicted(model, criterion, "term 'classification' needs 'auxiliary_logits'")


def test_a_matcher_that_looks_at_what_a_retinanet_does_not_predict_is_refused(model):
    assert_not_predicted(model, with_matcher(FromObjectness()), "matcher '.*' needs 'objectness'")


SUPPLIED = [name for name in NORMALIZERS.names() if NORMALIZERS[name].needs_number]


@pytest.mark.parametrize("name", SUPPLIED)
def test_a_normalizer_that_needs_a_number_with_each_call_is_refused(model, name):
    number = {"type": name}
    words = "a normalizer that needs no number with each call, .*, got"
    with pytest.raises(ValueError, match=f"{words} classification: {name}"):
        use_loss(model, criterion_of(normalizer=number))
    with pytest.raises(ValueError, match=f"{words} box: {name}"):
        use_loss(model, criterion_of(box={"type": "giou", "normalizer": number}))


@pytest.mark.parametrize("name", SUPPLIED)
def test_such_a_normalizer_may_stand_where_no_term_asks_it(model, name):
    terms = {
        "classification": {"type": "sigmoid_focal", "normalizer": {"type": "positives"}},
        "box": {"type": "giou", "normalizer": {"type": "positives"}},
    }
    use_loss(model, criterion_of(**terms, normalizer={"type": name})).train()
    assert sum(model(images(), targets()).values()).isfinite()


@pytest.mark.parametrize(
    "coder",
    [
        pytest.param({"type": "delta", "weights": [10, 10, 5, 5]}, id="other weights"),
        pytest.param({"type": "ltrb"}, id="distances"),
    ],
)
def test_a_coder_that_the_model_does_not_decode_with_is_refused(model, coder):
    words = r"decodes with, {type: delta, weights: \[1.0, 1.0, 1.0, 1.0\]}, got"
    with pytest.raises(ValueError, match=f"{words} .*{coder['type']}"):
        use_loss(model, criterion_of(coder=coder))


def test_a_background_column_is_refused(model):
    with pytest.raises(
        ValueError, match="without a background column, got classification: softmax_focal"
    ):
        use_loss(model, criterion_of(classification={"type": "softmax_focal"}))


@pytest.mark.parametrize("wrong", ["retinanet", {"type": "giou"}, nn.MSELoss()])
def test_what_is_no_criterion_is_refused(model, wrong):
    with pytest.raises(TypeError, match="criterion must be a DetectorLoss, .*, got"):
        use_loss(model, wrong)


@pytest.mark.parametrize("wrong", [nn.Linear(1, 1), nn.DataParallel(nn.Linear(1, 1)), None])
def test_another_model_is_refused(wrong):
    with pytest.raises(
        TypeError, match=f"must be one of torchvision's RetinaNet, .*, got {type(wrong).__name__}"
    ):
        use_loss(wrong, detloss.load_config("retinanet"))


def test_a_model_with_a_criterion_or_compute_loss_of_its_own_is_refused(model):
    model.criterion = nn.MSELoss()
    with pytest.raises(ValueError, match="no attribute 'criterion' of its own"):
        use_loss(model, detloss.load_config("retinanet"))
    del model.criterion
    model.compute_loss = max
    with pytest.raises(ValueError, match="compute_loss of its class, got another one"):
        use_loss(model, detloss.load_config("retinanet"))


# --- Evaluation, TorchScript, export, compile -----------------------------------------------------


def test_evaluation_is_untouched(model):
    plain = copy.deepcopy(model).eval()
    use_loss(model, detloss.load_config("retinanet_giou"))
    batch = images()
    for changed in (model.eval(), copy.deepcopy(model)):
        assert_same(changed(batch), plain(batch))
    assert isinstance(model, RetinaNet)
    assert repr(model).startswith("RetinaNet(")
    assert model.state_dict().keys() == plain.state_dict().keys()


@scripting
@pytest.mark.parametrize("steps", [0, 1])
def test_the_model_can_be_scripted_in_evaluation_mode(model, steps):
    use_loss(model, criterion_of(normalizer={"type": "moving_average"})).train()
    for _ in range(steps):
        model(images(), targets())
    model.eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    scripted, batch = torch.jit.load(file), images()
    assert_same(scripted(batch)[1], model(batch))
    assert not any("criterion" in key for key in scripted.state_dict())


@scripting
def test_a_scripted_model_has_no_loss_of_ours_nor_of_torchvision_s(model):
    scripted = torch.jit.script(use_loss(model, detloss.load_config("retinanet")))
    with pytest.raises(torch.jit.Error, match="annotated to be ignored and cannot be run"):
        scripted(images(), targets())


@scripting
def test_a_model_that_contains_it_can_be_scripted(model):
    class Wrapper(nn.Module):
        def __init__(self, detector):
            super().__init__()
            self.detector = detector

        def forward(self, x: list[torch.Tensor]):
            return self.detector(x, None)

    use_loss(model, detloss.load_config("retinanet")).eval()
    batch = images()
    scripted = torch.jit.script(Wrapper(model))
    assert_same(scripted(batch)[1], model(batch))
    assert isinstance(model.criterion, detloss.DetectorLoss)  # scripting has not changed the model


class WithoutSuppression(RetinaNet):
    """torchvision's own non-maximum suppression cannot be exported, whatever the loss.

    The warning is its own too: its anchor generator keeps the anchors of a cell.
    """

    def postprocess_detections(self, head_outputs, anchors, image_shapes):
        logits = torch.cat(head_outputs["cls_logits"], dim=1)
        return [{"boxes": anchors[0][0], "scores": image} for image in logits.sigmoid()]


@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects")
@pytest.mark.parametrize("strict", [False, True])
def test_the_model_can_be_exported_in_evaluation_mode(strict):
    batch = images()
    try:
        torch.export.export(retinanet(WithoutSuppression).eval(), (batch,), strict=strict).module()
    except Exception as error:
        pytest.skip(f"this release does not export the model without a loss: {error}")
    model = use_loss(retinanet(WithoutSuppression), detloss.load_config("retinanet")).eval()
    exported = torch.export.export(model, (batch,), strict=strict)
    assert_same(exported.module()(batch)[0]["scores"], model(batch)[0]["scores"])
    assert not any("criterion" in key for key in exported.state_dict)


def test_the_loss_compiles_into_one_graph_and_its_output_is_kept(model):
    use_loss(model, detloss.load_config("retinanet")).train()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model.compute_loss, fullgraph=True, backend=backend)
    anchors = [random_boxes(200, torch.Generator())] * 2
    for seed in (1, 2):
        heads = random_head_outputs(2, 200, torch.Generator().manual_seed(seed))
        terms = compiled(targets(), heads, anchors)
        assert_close(model.loss_output.terms, terms)
        assert_close(terms, model.compute_loss(targets(), heads, anchors))
    assert len(graphs) == 1


# --- import ---------------------------------------------------------------------------------------


def test_detloss_integrations_torchvision_works_after_import_detloss():
    lines = in_a_new_process(
        "import sys, detloss\n"
        "print('torchvision' in sys.modules)\n"
        "print(detloss.integrations.torchvision.use_loss.__module__)"
    )
    assert lines == ["False", "detloss.integrations.torchvision"]


@pytest.mark.parametrize("module", [detloss, detloss.integrations])
def test_an_unknown_name_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'abc'"):
        _ = module.abc
