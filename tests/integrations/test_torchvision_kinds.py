"""What holds for a criterion in each kind of torchvision's detectors; see test_torchvision.py."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from vision_models import KINDS, fcos, ssd

import detloss
from detloss.integrations.torchvision import detection_loss, restore_loss, use_loss

scripting = pytest.mark.filterwarnings(
    "ignore:`torch.jit", "ignore:.*always returns", "ignore:.*in scripting"
)
"""For tests of TorchScript, which PyTorch has deprecated."""


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def model(kind):
    return kind.build().train()


def images():
    return [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]


def criterion_of(kind):
    return detloss.load_config(kind.config)


def assert_same(a, b):
    """Equal to the bit."""
    assert_close(a, b, rtol=0, atol=0)


def seeded(call):
    """What `call` gives, which may draw random numbers (dropout, a sampler)."""
    torch.manual_seed(3)
    return call()


# --- The loss -------------------------------------------------------------------------------------


def test_the_first_step_is_torchvision_s_own(kind, model):
    batch, other = images(), use_loss(copy.deepcopy(model), criterion_of(kind))
    theirs = seeded(lambda: model(batch, kind.targets()))
    ours = seeded(lambda: other(batch, kind.targets()))
    for our_name, their_name in kind.names.items():
        assert theirs[their_name] > 0
        assert_close(ours[our_name], theirs[their_name], rtol=1e-5, atol=0)
    sum(theirs[name] for name in kind.names.values()).backward()
    sum(ours[name] for name in kind.names).backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    scale = max(float(p.grad.abs().max()) for p in parameters)
    for (name, mine), plain in zip(other.named_parameters(), model.parameters(), strict=True):
        assert (mine.grad is None) == (plain.grad is None), name
        if plain.grad is not None:
            assert_close(mine.grad, plain.grad, rtol=1e-5, atol=1e-6 * scale)


def test_ssdlite_s_first_step_is_torchvision_s_own():
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=6)
    other = use_loss(copy.deepcopy(model), detloss.load_config("ssd"))
    batch, targets = images(), KINDS["ssd"].targets()
    theirs, ours = (seeded(lambda m=m: m(batch, targets)) for m in (model, other))
    assert_close(ours["classification"], theirs["classification"], rtol=1e-5, atol=0)
    assert_close(ours["box"], theirs["bbox_regression"], rtol=1e-5, atol=0)


def test_images_without_objects(kind, model):
    use_loss(model, criterion_of(kind))
    empty = [kind.targets()[1]] * 2
    terms = model(images(), empty)
    sum(terms[name] for name in kind.names).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in kind.part_of(model).head.parameters())


def test_other_losses_are_a_word_of_the_config(kind, model):
    criterion = criterion_of(kind)
    use_loss(model, criterion)
    before = seeded(lambda: model(images(), kind.targets()))
    kind.part_of(model).criterion = detloss.build({**criterion.config(), "box": {"type": "diou"}})
    after = seeded(lambda: model(images(), kind.targets()))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"loss_rpn_box_reg" if kind.part else "box"}


# --- A part of the model --------------------------------------------------------------------------


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied_by", [copy.deepcopy, saved_and_loaded, lambda model: AveragedModel(model).module]
)
def test_a_copy_uses_the_criterion_that_was_copied_with_it(kind, model, copied_by):
    use_loss(model, criterion_of(kind))
    batch = images()
    expected = seeded(lambda: model(batch, kind.targets()))
    assert kind.part_of(model).loss_output is not None
    other = copied_by(model)
    assert type(other) is type(model)
    assert kind.part_of(other).criterion is not kind.part_of(model).criterion
    assert kind.part_of(other).loss_output is None
    assert_same(seeded(lambda: other(batch, kind.targets())), expected)


def test_evaluation_is_untouched(kind, model):
    plain = copy.deepcopy(model).eval()
    use_loss(model, criterion_of(kind)).eval()
    batch = images()
    assert_same(model(batch), plain(batch))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert isinstance(model, type(plain))


def test_restore_loss_is_the_way_back(kind, model):
    plain, batch = copy.deepcopy(model), images()
    use_loss(model, criterion_of(kind))
    model(batch, kind.targets())
    assert restore_loss(model) is model
    assert type(kind.part_of(model)) is type(kind.part_of(plain))
    assert vars(kind.part_of(model)).keys() == vars(kind.part_of(plain)).keys()
    model.load_state_dict(plain.state_dict())  # the step has moved averages of batch norm
    ours, theirs = (seeded(lambda m=m: m(batch, kind.targets())) for m in (model, plain))
    assert_same(ours, theirs)


def test_the_validation_loss_moves_nothing_and_has_a_graph(kind, model):
    use_loss(model, criterion_of(kind)).eval()
    before, batch = copy.deepcopy(model.state_dict()), images()
    first, second = (seeded(lambda: detection_loss(model, batch, kind.targets())) for _ in "12")
    assert_same(first.terms, second.terms)
    assert_same(model.state_dict(), before)
    assert not any(module.training for module in model.modules())
    first.total.backward()
    assert all(p.grad is not None for p in kind.part_of(model).head.parameters())


def seen_by(criterion, monkeypatch):
    """What its calls are given by keyword, from now on."""
    seen, forward = [], criterion.forward
    monkeypatch.setattr(
        criterion, "forward", lambda *given, **named: seen.append(named) or forward(*given, **named)
    )
    return seen


@pytest.mark.parametrize("training", [True, False])
def test_level_sizes_are_those_of_the_model(kind, model, training, monkeypatch):
    criterion = criterion_of(kind)
    seen = seen_by(criterion, monkeypatch)
    use_loss(model, criterion).train(training)
    output = detection_loss(model, images(), kind.targets())
    counts = kind.part_of(model).anchor_generator.num_anchors_per_location()
    assert [call["level_sizes"] for call in seen] == [[64 * counts[0], 16 * counts[1]]]
    assert sum(seen[0]["level_sizes"]) == len(output.matches[0].positive)


def test_the_size_of_an_image_is_that_which_the_network_sees(kind, model, monkeypatch):
    """A target may say another one, of the image in its file."""
    criterion = criterion_of(kind)
    seen = seen_by(criterion, monkeypatch)
    given = [torch.rand(3, 128, 64), torch.rand(3, 64, 64)]
    targets = [target | {"size": torch.tensor([128, 64])} for target in kind.targets()]
    use_loss(model, criterion)(given, targets)
    sizes = model.transform(given)[0].image_sizes
    assert [call["image_size"].tolist() for call in seen] == [list(map(list, sizes))]
    assert sizes[0] != (128, 64)


@scripting
def test_the_model_can_be_scripted_in_evaluation_mode(kind, model):
    batch = images()
    use_loss(model, criterion_of(kind))(batch, kind.targets())
    scripted = torch.jit.script(model.eval())
    assert_same(scripted(batch)[1], model(batch))
    assert not any("criterion" in key for key in scripted.state_dict())


# --- SSD: background comes first there ------------------------------------------------------------


def test_a_label_of_background_is_refused():
    model = use_loss(ssd(), detloss.load_config("ssd")).train()
    targets = KINDS["ssd"].targets()
    targets[0]["labels"] -= 1
    with pytest.raises(ValueError, match="labels"):
        model(images(), targets)


def test_a_loss_without_a_background_column_is_refused():
    criterion = detloss.load_config("retinanet")
    config = {**criterion.config(), "coder": {"type": "delta", "weights": [10, 10, 5, 5]}}
    with pytest.raises(ValueError, match="with a background column, got classification: sigm"):
        use_loss(ssd(), detloss.build(config))


# --- What a model cannot serve --------------------------------------------------------------------


def test_a_coder_that_the_model_does_not_decode_with_is_refused():
    config = {**detloss.load_config("fcos").config(), "coder": {"type": "ltrb", "normalize": False}}
    with pytest.raises(ValueError, match="decodes with, {type: ltrb, normalize: true}, got"):
        use_loss(fcos(), detloss.build(config))


@pytest.mark.parametrize(
    ("build", "config", "words"),
    [
        pytest.param(
            KINDS["ssd"].build,
            "fcos",
            "of an SSD, .*; its term 'centerness' needs 'centerness'",
            id="a term",
        ),
        pytest.param(
            KINDS["faster_rcnn"].build,
            "retinanet",
            "of a RegionProposalNetwork, .*; its term 'classification' needs 'class_logits'",
            id="classes in a proposal network",
        ),
    ],
)
def test_what_a_model_does_not_predict_is_refused(build, config, words):
    model = build()
    with pytest.raises(ValueError, match=words):
        use_loss(model, detloss.load_config(config))
    assert not any("criterion" in vars(part) for part in model.modules())


# --- The proposal network of Faster R-CNN ---------------------------------------------------------


def test_the_proposal_network_may_be_given_itself():
    model = KINDS["faster_rcnn"].build().train()
    batch, targets = images(), KINDS["faster_rcnn"].targets()
    other = copy.deepcopy(model)
    assert use_loss(other.rpn, detloss.load_config("rpn")) is other.rpn
    use_loss(model, detloss.load_config("rpn"))
    expected = seeded(lambda: model(batch, targets))
    assert_same(seeded(lambda: other(batch, targets)), expected)
    assert restore_loss(other.rpn) is other.rpn


def test_its_terms_are_in_its_output():
    model = use_loss(KINDS["faster_rcnn"].build(), detloss.load_config("rpn")).train()
    losses = model(images(), KINDS["faster_rcnn"].targets())
    terms = model.rpn.loss_output.terms
    assert_same(terms["objectness"], losses["loss_objectness"].detach())
    assert_same(terms["box"], losses["loss_rpn_box_reg"].detach())


def test_a_model_without_dense_predictions_is_refused():
    names = "RetinaNet, FCOS, SSD, RegionProposalNetwork, GeneralizedRCNN"
    with pytest.raises(TypeError, match=f"one of torchvision's {names}, got Linear"):
        use_loss(nn.Linear(1, 1), detloss.load_config("rpn"))
