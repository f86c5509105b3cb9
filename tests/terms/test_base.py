"""What every registered term does."""

import copy

import pytest
import torch
from scenes import CLASSES, build, gradients, grid_anchors, predictions_for, random_targets
from torch.testing import assert_close

import detloss
from detloss.registry import CLASSIFICATION, REGRESSION, TERMS, options_of
from detloss.tensors import without_host_sync
from detloss.terms import BoxTerm, ClassificationTerm, LogitTerm, Term

ANCHORS = grid_anchors()
ONE_LOSS = {"box loss": "giou", "classification loss": "sigmoid_cross_entropy"}


def criterion_of(term, matcher="max_iou", **options):
    """A criterion with that term alone, beside what its qualities look at."""
    loss = {"type": ONE_LOSS[TERMS[term].losses.role], **options}
    return detloss.build({"matcher": {"type": matcher}, term: loss})


def predictions_of(criterion, batch=2):
    predictions = predictions_for(criterion, batch, len(ANCHORS))
    generator = torch.Generator().manual_seed(5)
    shape = (batch, len(ANCHORS), criterion.coder.width)
    predictions.setdefault("box_regression", torch.randn(shape, generator=generator) / 4)
    shape = (batch, len(ANCHORS), CLASSES)
    predictions.setdefault("class_logits", torch.randn(shape, generator=generator))
    return predictions


@pytest.fixture(params=TERMS.names())
def term(request):
    return request.param


def test_the_options_of_terms_are_not_those_of_losses():
    """They stand side by side in a config."""
    of_losses = {
        name
        for registry in (CLASSIFICATION, REGRESSION)
        for loss in registry.names()
        for name in options_of(registry[loss])
    }
    of_terms = {name for name in TERMS.names() for name in options_of(TERMS[name])}
    assert not of_losses & of_terms


def test_trains_and_is_zero_without_objects(term):
    criterion = criterion_of(term)
    predictions = predictions_of(criterion)
    read = criterion.terms[term].reads
    output = criterion(predictions, random_targets([3, 2]), anchors=ANCHORS)
    assert list(output.terms) == [term]
    assert output.total > 0
    (gradient,) = torch.autograd.grad(output.total, predictions[read])
    assert gradient.isfinite().all()
    assert (gradient != 0).any()
    empty = criterion(predictions, random_targets([0, 0]), anchors=ANCHORS)
    (gradient,) = torch.autograd.grad(empty.total, predictions[read])
    if criterion.terms[term].over == "positives":
        assert empty.total == 0
        assert (gradient == 0).all()


def test_images_add_up_to_the_batch(term):
    criterion = criterion_of(term)
    predictions, targets = predictions_of(criterion), random_targets([3, 2])
    batch = criterion(predictions, targets, anchors=ANCHORS)
    images = criterion(predictions, targets, anchors=ANCHORS, reduction="image")
    assert images.total.shape == (2,)
    assert_close(images.total.sum(), batch.total)
    one = criterion(
        {name: values[:1] for name, values in predictions.items()},
        targets[:1],
        anchors=ANCHORS,
        normalizer=batch.divisors,
    )
    assert_close(images.total[0], one.total)


def test_without_a_host_sync_it_is_the_same(term):
    criterion = criterion_of(term)
    predictions, targets = predictions_of(criterion), random_targets([3, 0])
    read = [predictions[criterion.terms[term].reads]]
    expected = criterion(predictions, targets, anchors=ANCHORS).total
    with without_host_sync():
        got = criterion(predictions, targets, anchors=ANCHORS).total
    assert_close(got, expected)
    assert_close(torch.autograd.grad(got, read), torch.autograd.grad(expected, read))


def test_compiles_to_one_graph(term):
    criterion = criterion_of(term)
    predictions, targets = predictions_of(criterion), random_targets([3, 1])
    compiled = torch.compile(
        lambda p, t: criterion(p, t, anchors=ANCHORS).total, fullgraph=True, backend="aot_eager"
    )
    assert_close(
        compiled(predictions, targets), criterion(predictions, targets, anchors=ANCHORS).total
    )


def test_a_weight_multiplies_and_zero_silences(term):
    predictions, targets = predictions_of(criterion_of(term)), random_targets([3, 2])
    one, three, nothing = (
        criterion_of(term, weight=weight)(predictions, targets, anchors=ANCHORS)
        for weight in (1.0, 3.0, 0.0)
    )
    assert_close(three.total, 3 * one.total)
    assert three.unweighted[term] == one.unweighted[term] == nothing.unweighted[term]
    assert nothing.total == 0
    with torch.no_grad():
        predictions[criterion_of(term).terms[term].reads].fill_(float("nan"))
    silent = criterion_of(term, weight=0.0)
    output = silent(predictions, targets, anchors=ANCHORS)
    assert output.total == 0
    (gradient,) = torch.autograd.grad(output.total, predictions[silent.terms[term].reads])
    assert (gradient == 0).all()


def test_reads_another_prediction(term):
    criterion = criterion_of(term)
    read = criterion.terms[term].reads
    predictions, targets = predictions_of(criterion), random_targets([3, 2])
    other = criterion_of(term, reads="refined")
    assert other.terms[term].reads == "refined"
    renamed = {**predictions, "refined": predictions[read]}
    if read != "box_regression":
        del renamed[read]
    assert_close(
        other(renamed, targets, anchors=ANCHORS).total,
        criterion(predictions, targets, anchors=ANCHORS).total,
    )
    with pytest.raises(ValueError, match="predictions must have 'refined'"):
        other(predictions, targets, anchors=ANCHORS)


def test_a_missing_or_odd_prediction_is_named(term):
    criterion = criterion_of(term)
    read = criterion.terms[term].reads
    targets = random_targets([1, 1])
    with pytest.raises(ValueError, match=f"predictions must have '{read}'.*, got nothing"):
        criterion({}, targets, anchors=ANCHORS)
    predictions = predictions_of(criterion) | {read: torch.zeros(2, len(ANCHORS), 7, 3)}
    with pytest.raises(
        ValueError, match=rf"predictions\['{read}'\] must have shape .*, got \(2, 64, 7, 3\)"
    ):
        criterion(predictions, targets, anchors=ANCHORS)


def test_its_own_normalizer_divides_it_alone(term):
    predictions, targets = predictions_of(criterion_of(term)), random_targets([3, 2])
    by_positives, by_seven = (
        criterion_of(term, normalizer=normalizer)(predictions, targets, anchors=ANCHORS)
        for normalizer in (None, {"type": "constant", "value": 7.0})
    )
    assert by_seven.divisors[term] == 7
    assert_close(by_seven.total * 7, by_positives.total * by_positives.divisors[term])


def test_config_round_trips(term):
    options = {"weight": 2.0, "reads": "mine", "level_weights": [1.0, 2.0]}
    criterion = criterion_of(term, **options, normalizer={"type": "anchors", "sync": True})
    again = detloss.build(criterion.config())
    assert again.config() == criterion.config()
    assert repr(copy.deepcopy(criterion)) == repr(criterion)
    for name, value in options.items():
        assert criterion.config()[term][name] == value


def test_refuses_a_loss_of_another_kind(term):
    cls = TERMS[term]
    wrong = CLASSIFICATION["sigmoid_focal"] if cls is BoxTerm else REGRESSION["giou"]
    with pytest.raises(TypeError, match=f"{cls.takes.__name__}, got|takes a {cls.losses.role}"):
        cls(wrong())


@pytest.mark.parametrize("over", ["all", "positives"])
def test_a_term_of_logits_runs_over_what_it_is_told(term, over):
    if not issubclass(TERMS[term], LogitTerm):
        return
    criterion = criterion_of(term, over=over)
    predictions, targets = predictions_of(criterion), random_targets([3, 2])
    output = criterion(predictions, targets, anchors=ANCHORS)
    (gradient,) = torch.autograd.grad(output.total, predictions[criterion.terms[term].reads])
    positive = torch.stack([match.positive for match in output.matches])
    ignored = torch.stack([match.ignored for match in output.matches])
    touched = (gradient != 0).reshape(*positive.shape, -1).any(-1)
    assert torch.equal(touched, positive if over == "positives" else ~ignored)


def test_two_terms_read_one_matched_batch():
    """Terms know nothing of each other: alone each is what it is beside the other."""
    both = build(classification={"type": "sigmoid_focal"}, box={"type": "ciou", "weight": 2.0})
    predictions, targets = predictions_of(both), random_targets([3, 2])
    together = both(predictions, targets, anchors=ANCHORS)
    for name, loss in (("classification", {"type": "sigmoid_focal"}), ("box", {"type": "ciou"})):
        alone = detloss.build({"matcher": {"type": "max_iou"}, name: loss})
        output = alone(predictions, targets, anchors=ANCHORS)
        assert torch.equal(output.unweighted[name], together.unweighted[name])


def test_decoded_boxes_are_made_once(monkeypatch):
    criterion = detloss.build(
        {
            "matcher": {"type": "max_iou"},
            "classification": {"type": "sigmoid_cross_entropy", "label": "iou"},
            "box": [
                {"type": "giou", "weigh_by": "iou", "normalizer": {"type": "row_weights"}},
                {"type": "ciou"},
            ],
            "normalizer": {"type": "target_scores"},
        }
    )
    calls = []
    decode = criterion.coder.decode

    def counted(*args):
        calls.append(args)
        return decode(*args)

    monkeypatch.setattr(criterion.coder, "decode", counted)
    predictions = predictions_of(criterion)
    output = criterion(predictions, random_targets([3, 2]), anchors=ANCHORS)
    assert len(calls) == 1
    assert all((gradient != 0).any() for gradient in gradients(output.total, predictions))


def test_every_term_is_a_term():
    assert all(issubclass(TERMS[name], Term) for name in TERMS.names())
    assert TERMS["classification"] is ClassificationTerm
