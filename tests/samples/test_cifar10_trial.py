"""The trial's arithmetic: exact tests, raw answers that survive, baselines that do what they say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

import edgepure
from samples.cifar10.baselines import blur, gaussian, jpeg, principal_components, projection, wiener
from samples.cifar10.models import CifarClassifier, CifarUNet
from samples.cifar10.presets import fixed_presets, ssni_presets
from samples.cifar10.resnet import CifarResNet
from samples.cifar10.train_classifier import augment, batches
from samples.cifar10.training import Clock, alpha_bar, orthogonal
from samples.cifar10.trial.attacks import Attack, run
from samples.cifar10.trial.bundle_key import bundle_key, graph_digest
from samples.cifar10.trial.claims import Claim, between, common
from samples.cifar10.trial.claims import test as verdicts
from samples.cifar10.trial.statistics import holm, paired, sign_test
from samples.cifar10.trial.store import Answers, Store, joined
from samples.cifar10.trial.systems import Filtered
from samples.cifar10.trial.tasks import tasks


def answers(system: str = "a-6", attack: str = "clean", images: int = 40, draws: int = 5, seed: int = 0) -> Answers:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, images)
    votes = np.where(generator.random((draws, images)) < 0.8, labels, generator.integers(0, 10, (draws, images)))
    top = generator.random((draws, images)).astype(np.float32) - 1
    return Answers(system, attack, 6, np.arange(images), labels, votes, top, 1.5)


def test_the_key_of_a_bundle_is_what_it_computes(tmp_path: Path) -> None:
    bundle = edgepure.demo_bundle()
    original = onnx.load(bundle / "step.onnx")

    def digest(model: onnx.ModelProto) -> str:
        onnx.save(model, tmp_path / "graph.onnx")
        return graph_digest(tmp_path / "graph.onnx")

    def changed() -> onnx.ModelProto:
        return onnx.ModelProto.FromString(original.SerializeToString())

    same, renamed, weight, order, flag = digest(original), changed(), changed(), changed(), changed()
    kept = {value.name for value in (*renamed.graph.input, *renamed.graph.output)}
    for node in renamed.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if name in kept or not name else f"{name}_called_so" for name in names]
    for tensor in renamed.graph.initializer:
        tensor.name += "_called_so"
    assert digest(renamed) == same
    large = max(weight.graph.initializer, key=lambda tensor: math.prod(tensor.dims))
    large.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(large) * 1.001, large.name))
    assert digest(weight) != same
    images = next(node for node in order.graph.node if node.op_type == "Concat")
    images.input[:] = images.input[::-1]
    assert digest(order) != same
    conv = next(node for node in flag.graph.node if node.op_type == "Conv")
    conv.attribute.append(onnx.helper.make_attribute("group", 2))
    assert digest(flag) != same

    key = bundle_key(bundle, "cpu", "fp32")
    assert len(key) == 16
    assert bundle_key(bundle, "cpu", "fp32") == key != bundle_key(bundle, "openvino", "fp32")


def test_sign_test_is_exact() -> None:
    assert sign_test(0, 5) == pytest.approx(2 / 32)
    assert sign_test(5, 5) == 1.0
    assert sign_test(3, 10) == pytest.approx(2 * sum(math.comb(13, k) for k in range(4)) / 2**13)


def test_paired_counts_only_what_differs() -> None:
    first = np.array([1, 1, 1, 0, 0, 1], bool)
    second = np.array([1, 0, 0, 0, 1, 1], bool)
    found = paired(first, second)
    assert (found.wins, found.losses, found.images) == (2, 1, 6)
    assert found.difference == pytest.approx(1 / 6)
    assert found.low < found.difference < found.high
    assert paired(first, first).p == 1.0


def test_holm_corrects_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_raw_answers_go_and_come_back(tmp_path: Path) -> None:
    store, made = Store(tmp_path), answers(images=64)
    halves = [
        Answers(made.system, made.attack, 6, made.index[s], made.labels[s], made.votes[:, s], made.top[:, s], 0.5)
        for s in (slice(0, 32), slice(32, 64))
    ]
    for number, half in enumerate(halves):
        store.put(half, number, 5)
    (back,) = store.all()
    np.testing.assert_array_equal(back.votes, joined(halves).votes)
    np.testing.assert_array_equal(back.majority(5), made.majority(5))
    assert store.get("a-6", "clean", 2, 5) is None


def test_a_missing_batch_ends_what_is_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in (0, 2):
        store.put(answers(images=32), number, 5)
    assert len(store.all()[0]) == 32


def test_rules() -> None:
    labels = np.array([1, 1, 1])
    votes = np.array([[1, 2, 1], [1, 1, 3], [2, 2, 3]])
    found = Answers("s", "clean", 3, np.arange(3), labels, votes, np.zeros((3, 3), np.float32), 0.0)
    assert found.right("single").tolist() == [True, False, True]
    assert found.right("worst-3").tolist() == [False, False, False]
    assert found.right("majority-3").tolist() == [True, False, False]


def test_claims_compare_the_images_that_both_have_met() -> None:
    short, long = answers(images=20, seed=1), answers("b-6", images=40, seed=2)
    both = common(short, long)
    assert both is not None
    assert [len(a) for a in both] == [20, 20]
    found = {("a-6", "clean"): short, ("b-6", "clean"): long, ("b-6", "pgd"): long}
    (verdict,) = verdicts([Claim("a beats b", "a-6", "b-6")], found)
    assert verdict.rule == "majority-5"
    assert verdict.result.images == 20


def test_two_classifiers_are_compared_behind_the_same_systems_on_the_same_images() -> None:
    theirs = answers(images=40, seed=1)
    groups = {
        "ours": {("a-6", "clean"): answers(images=64), ("b-6", "clean"): answers("b-6")},
        "resnet56": {("a-6", "clean"): theirs, ("a-6", "pgd-e8-20x2"): answers(attack="pgd-e8-20x2")},
    }
    claims, named = between("resnet56", "ours", groups)
    assert [(c.first, c.second) for c in claims] == [("a-6, resnet56", "a-6, ours")]
    (verdict,) = verdicts(claims, named)
    ours = groups["ours"]["a-6", "clean"].part(slice(40))
    assert (verdict.attack, verdict.rule, verdict.result.images) == ("clean", "majority-5", 40)
    assert verdict.result == paired(theirs.right("majority-5"), ours.right("majority-5"))


def test_baselines_change_what_they_should() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 32, 32, generator=generator)
    mean, components, variances = principal_components((x * 255).byte().numpy(), 3)
    filters = (jpeg(50), blur(1.0), projection(mean, components, 3), gaussian(0.1))
    for one in (*filters, wiener(mean, components, variances, 60)):
        y = one.transform(x, generator)
        assert y.shape == x.shape
        assert one.random == one.name.startswith(("noise", "wiener"))
    flat = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(blur(1.0).transform(flat, generator), flat)
    # four images lie in three dimensions around their mean
    pixels = (x * 255).byte().float() / 255
    torch.testing.assert_close(projection(mean, components, 3).transform(pixels, generator), pixels, atol=1e-3, rtol=0)


def test_jpeg_has_the_gradient_of_the_identity() -> None:
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    jpeg(30).transform(x, torch.Generator()).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert bool((x.grad == 1).all())


@pytest.mark.parametrize("kind", ["pgd", "bpda", "apgd", "square", "low-frequency", "transfer"])
def test_attacks_stay_in_their_ball(kind: str) -> None:
    torch.manual_seed(0)
    plain = Filtered("plain", CifarClassifier((8, 8, 8)).eval().requires_grad_(False))
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    eps = 0.15 if kind == "low-frequency" else 8 / 255
    attacked = run(Attack(kind, eps=eps, steps=3, eot=2), plain, plain, images, np.array([1, 2]), 3)
    assert attacked.shape == images.shape
    assert 0.5 * eps < np.abs(attacked - images).max() <= eps + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1


def test_presets_cost_what_their_names_say() -> None:
    import edgepure
    from edgepure.methods.planner import Planner

    planner = Planner(edgepure.ScheduleSpec().build(), 3072)
    for name, preset in {**fixed_presets(), **ssni_presets(30.0, 2.0, 26.0, 34.0)}.items():
        calls = next((int(part) for part in reversed(name.split("-")) if part.isdigit()), 1)
        assert planner.plan(edgepure.Preset.parse(preset)).unet_calls == calls, name


def test_every_task_is_of_a_known_preset() -> None:
    known = ["plain", "jpeg-50", *fixed_presets(), *ssni_presets(30.0, 2.0, 26.0, 34.0)]
    assert {t.system for t in tasks(known)} == set(known)
    names = [(t.system, t.attack.name, t.draws) for t in tasks(known)]
    assert len(names) == len(set(names))


def test_networks_have_taps_and_denoise_before_they_learn() -> None:
    x = torch.rand(2, 3, 32, 32)
    for network in (CifarClassifier(), CifarResNet(20)):
        assert network.eval()(x).shape == (2, 10)
        assert set(network.TAPS) <= set(dict(network.named_modules()))
    assert sum(p.numel() for p in CifarUNet().parameters()) < 5_000_000
    bars = alpha_bar()
    clean = torch.randn(64, 3, 32, 32) * 0.5  # of the variance that the network assumes
    noise, t = torch.randn(64, 3, 32, 32), 200
    noisy = bars[t].sqrt() * clean + (1 - bars[t]).sqrt() * noise
    with torch.no_grad():
        error = (CifarUNet()(noisy, torch.full((64,), float(t))) - noise).square().mean()
    assert float(error) == pytest.approx(float(bars[t] * 0.25 / (bars[t] * 0.25 + 1 - bars[t])), rel=0.05)


def test_orthogonal_updates() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(16, 40), rounds=10))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5


def test_progress_counts_the_time_of_all_starts() -> None:
    assert Clock(1.0, 30.0).progress() == pytest.approx(0.5, abs=0.01)
    assert Clock(1.0, 90.0).progress() == 1.0


def test_an_image_is_mirrored_in_every_second_epoch() -> None:
    generator = torch.Generator().manual_seed(0)
    source, seen = batches(20, 10, 0, generator), [torch.zeros(20), torch.zeros(20)]
    for _ in range(4):
        epoch, chosen, mirrored = next(source)
        seen[epoch][chosen] += mirrored.float() + 1
    assert bool((seen[0] + seen[1] == 3).all())


def test_augmentation_without_reach_is_the_image() -> None:
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    same = augment(images, torch.zeros(3, dtype=torch.bool), torch.Generator(), reach=0)
    torch.testing.assert_close(same, images.float() / 255)


def test_published_answers_are_put_back_as_the_batches_that_they_were(tmp_path: Path) -> None:
    published = [answers("a-6", images=104), answers("b-6", attack="pgd", images=64, draws=20, seed=1)]
    store = Store(tmp_path / "ours-0123")
    assert store.key == "0123"
    store.put(published[0].part(slice(96, 100)), 3, 5)  # of a run on fewer images
    assert store.restore(Answers.from_dict(one.to_dict()) for one in published) == 6
    assert store.restore(published) == 0
    for before, after in zip(published, store.all(), strict=True):
        assert (after.system, after.attack) == (before.system, before.attack)
        np.testing.assert_array_equal(after.votes, before.votes)
        np.testing.assert_array_equal(after.index, before.index)
        np.testing.assert_allclose(after.top, before.top, atol=1e-3)
