"""A criterion inside torchvision's RetinaNet."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

import detloss
from detloss.integrations.torchvision import prior_bias, use_loss

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = 5


@pytest.fixture
def model():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU())
    backbone.out_channels = 8
    return RetinaNet(
        backbone,
        num_classes=CLASSES,
        anchor_generator=AnchorGenerator(((16, 24),), ((0.5, 1.0, 2.0),)),
        min_size=64,
        max_size=64,
    )


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
    targets = [
        {
            "boxes": random_boxes(count, generator),
            "labels": torch.randint(0, CLASSES, (count,), generator=generator),
        }
        for count in counts
    ]
    heads = random_head_outputs(len(counts), 2000, generator)

    theirs = {name: values.clone().requires_grad_() for name, values in heads.items()}
    expected = model.compute_loss(targets, theirs, anchors)
    sum(expected.values()).backward()

    ours = {name: values.clone().requires_grad_() for name, values in heads.items()}
    use_loss(model, detloss.load_config(CONFIGS / "retinanet.yaml"))
    terms = model.compute_loss(targets, ours, anchors)
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
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 30, 34]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    ]
    terms = model(images, targets)
    assert list(terms) == ["classification", "box"]
    sum(terms.values()).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_evaluation_is_untouched_and_the_model_copies(model):
    plain = copy.deepcopy(model).eval()
    use_loss(model, detloss.load_config(CONFIGS / "retinanet_giou.yaml"))
    image = [torch.rand(3, 64, 64)]
    for changed in (model.eval(), copy.deepcopy(model)):
        assert_close(changed(image)[0], plain(image)[0])
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_another_model_is_refused():
    with pytest.raises(TypeError, match="must be a torchvision RetinaNet, got Linear"):
        use_loss(nn.Linear(1, 1), detloss.load_config(CONFIGS / "retinanet.yaml"))


def test_a_coder_that_the_model_does_not_decode_with_is_refused(model):
    config = detloss.load_config(CONFIGS / "retinanet.yaml").config()
    config["coder"]["weights"] = [10, 10, 5, 5]
    with pytest.raises(ValueError, match=r"weights: \[1.0, 1.0, 1.0, 1.0\]}, got .*10.0"):
        use_loss(model, detloss.build(config))


def test_a_background_column_is_refused(model):
    config = detloss.load_config(CONFIGS / "retinanet.yaml").config()
    config["classification"] = {"type": "softmax_focal"}
    with pytest.raises(ValueError, match="without a background column, got classification: softmax_focal"):
        use_loss(model, detloss.build(config))


def test_prior_bias_starts_every_class_at_pi():
    assert_close(torch.tensor(prior_bias(0.01)).sigmoid(), torch.tensor(0.01))


@pytest.mark.parametrize("pi", [0.0, 1.0, -0.1])
def test_prior_bias_outside_its_range(pi):
    with pytest.raises(ValueError, match=rf"pi must be in \(0, 1\), got {pi}"):
        prior_bias(pi)


@pytest.mark.parametrize("name", ["positives", "moving_average"])
def test_the_criterion_is_a_part_of_the_model(model, name):
    """Moved, saved and switched to evaluation with it; only a running number is saved."""
    saved = model.state_dict().keys()
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {"type": "sigmoid_focal"},
            "box": {"type": "l1"},
            "normalizer": {"type": name},
        }
    )
    model = use_loss(copy.deepcopy(model), criterion)
    added = {"criterion.normalizer.average"} if name == "moving_average" else set()
    assert model.state_dict().keys() - saved == added
    assert not model.eval().criterion.normalizer.training
    assert all(values.is_meta for values in model.to("meta").criterion.buffers())
