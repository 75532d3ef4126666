"""Do the detectors rank samples as their formulas and pytorch-ood do, and do all keep the same contract?"""

import json

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import tfprune
from tfprune.uncertainty import detectors as ood
from tfprune.uncertainty.detectors import DETECTORS, ash, fdbd, gen, kl_matching, odin, she, vim
from tfprune.uncertainty.leak import Fingerprint

NUM_CLASSES, NUM_FEATURES = 5, 12
# settings under which the formulas below are written
SETTINGS = {
    "gen": {"num_largest": 3},
    "odin": {"epsilon": 0.02, "temperature": 10.0, "input_std": 0.5},
    "knn": {"num_neighbors": 7},
    "vim": {"dim": 5},
    "ash": {"percentile": 60},
    "nnguide": {"bank_ratio": 1.0, "num_neighbors": 9},
}


def classifier(seed=0, activation="relu"):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(20, activation="relu", name="first"),
            layers.Dense(NUM_FEATURES, activation=activation, name="second"),
            layers.Dropout(0.5),
            layers.Dense(NUM_CLASSES, name="logits", bias_initializer="normal"),
            layers.Softmax(),
        ]
    )
    model.layers[0].bias.assign(np.random.RandomState(1).uniform(0, 0.5, 20))
    model.layers[1].bias.assign(np.random.RandomState(2).uniform(0, 0.5, NUM_FEATURES))
    return model


def draw(seed, num_samples, shift=0.0):
    return (np.random.RandomState(seed).randn(num_samples, 8) + shift).astype("float32")


def logits_and_features(model, x):
    """By Keras' own means, in float64."""
    get = keras.Model(model.inputs[0], [model.layers[1].output, model.layers[3].output])
    features, logits = get(x)
    return np.asarray(logits, dtype=np.float64), np.asarray(features, dtype=np.float64)


class Case:
    """A model, training and test samples, and everything that a formula needs of them."""

    def __init__(self):
        self.model = classifier(activation="softplus")  # no zeros, so no ties
        self.x_train, self.x = draw(3, 300), draw(4, 150, shift=0.3)
        head = self.model.layers[3]
        _, phi = logits_and_features(self.model, self.x_train)
        head.kernel.assign(2 * head.kernel)
        head.bias.assign(1.0 - phi.mean(0) @ np.asarray(head.kernel))  # so that every class is predicted
        self.z_train, self.phi_train = logits_and_features(self.model, self.x_train)
        self.z, self.phi = logits_and_features(self.model, self.x)
        wrong = np.random.RandomState(5).rand(300) < 0.2
        self.y = np.where(wrong, np.random.RandomState(6).randint(0, NUM_CLASSES, 300), self.z_train.argmax(1))
        self.w = np.asarray(self.model.layers[3].kernel, dtype=np.float64)
        self.b = np.asarray(self.model.layers[3].bias, dtype=np.float64)


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def fitted(case):
    """All detectors with the settings of the formulas, fitted on the case."""
    made = [DETECTORS[name](**SETTINGS.get(name, {})) for name in DETECTORS]
    return {detector.name: detector for detector in ood.fit_all(made, case.model, (case.x_train, case.y))}


@pytest.fixture(scope="module")
def scores(case, fitted):
    return ood.score_all(list(fitted.values()), case.x)


def assert_same_order(first, second):
    """Spearman's rank correlation is exactly 1."""
    assert len(np.unique(second)) == len(second)
    np.testing.assert_array_equal(np.argsort(first), np.argsort(second))


# --- the formulas, written plainly ------------------------------------------------------------------------------------


def p_of(z):
    return scipy.special.softmax(z, axis=1)


def energy(z):
    return -np.log(np.exp(z).sum(1))


def gen_plain(c):
    p = -np.sort(-p_of(c.z), axis=1)[:, :3]
    return (p**0.1 * (1 - p) ** 0.1).sum(1)


def odin_plain(c):
    x = tf.constant(c.x)
    head = keras.Model(c.model.inputs[0], c.model.layers[3].output)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = head(x) / 10.0
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.argmax(z, axis=1), z)
        loss = tf.reduce_sum(nll)
    stepped = x - 0.02 * tf.sign(tape.gradient(loss, x)) / 0.5
    return -p_of(np.asarray(head(stepped), dtype=np.float64) / 10.0).max(1)


def distances(phi, mean, precision):
    return np.einsum("nd,de,ne->n", phi - mean, precision, phi - mean)


def class_distances_plain(c):
    means = np.stack([c.phi_train[c.y == k].mean(0) for k in range(NUM_CLASSES)])
    centred = c.phi_train - means[c.y]
    precision = np.linalg.inv(centred.T @ centred / len(centred))
    return np.stack([distances(c.phi, mean, precision) for mean in means], axis=1)


def relative_plain(c):
    whole = c.phi_train - c.phi_train.mean(0)
    d_0 = distances(c.phi, c.phi_train.mean(0), np.linalg.inv(whole.T @ whole / len(whole)))
    return (class_distances_plain(c) - d_0[:, None]).min(1)


def unit(phi):
    return phi / np.linalg.norm(phi, axis=1, keepdims=True)


def knn_plain(c):
    return np.sort(np.linalg.norm(unit(c.phi)[:, None] - unit(c.phi_train)[None], axis=2), axis=1)[:, 6]


def vim_plain(c):
    origin = -np.linalg.pinv(c.w.T) @ c.b
    train = c.phi_train - origin
    _, vectors = np.linalg.eigh(train.T @ train)  # smallest first
    residual = vectors[:, : NUM_FEATURES - 5]
    alpha = c.z_train.max(1).sum() / np.linalg.norm(train @ residual, axis=1).sum()
    return alpha * np.linalg.norm((c.phi - origin) @ residual, axis=1) + energy(c.z)


def react_plain(c):
    return energy(np.minimum(c.phi, np.percentile(c.phi_train, 90)) @ c.w + c.b)


def dice_plain(c):
    contribution = c.phi_train.mean(0)[:, None] * c.w
    return energy(c.phi @ (c.w * (contribution > np.percentile(contribution, 90))) + c.b)


def ash_plain(c):
    shaped = np.zeros_like(c.phi)
    for row, phi in zip(shaped, c.phi, strict=True):
        row[np.argsort(-phi, kind="stable")[:5]] = phi.sum() / 5  # 12 - round(7.2) stay
    return energy(shaped @ c.w + c.b)


def scale_plain(c):
    factor = np.exp(c.phi.sum(1) / np.sort(c.phi, axis=1)[:, -2:].sum(1))  # 12 - round(10.2) count
    return energy((c.phi * factor[:, None]) @ c.w + c.b)


def gradnorm_plain(c):
    """The gradient itself, of each sample."""
    found = []
    for phi in c.phi:
        w = tf.Variable(c.w)
        with tf.GradientTape() as tape:
            uniform = -tf.reduce_sum(tf.nn.log_softmax(tf.constant(phi[None]) @ w + c.b)) / NUM_CLASSES
        found.append(-np.abs(tape.gradient(uniform, w)).sum())
    return np.array(found)


def kl_plain(c):
    p, p_train = p_of(c.z), p_of(c.z_train)
    templates = [p_train[c.z_train.argmax(1) == k].mean(0) for k in range(NUM_CLASSES)]
    return np.min([np.sum(p * np.log(p / template), axis=1) for template in templates], axis=0)


def she_plain(c):
    correct = c.z_train.argmax(1) == c.y
    patterns = np.stack([c.phi_train[correct & (c.y == k)].mean(0) for k in range(NUM_CLASSES)])
    return -np.sum(c.phi * patterns[c.z.argmax(1)], axis=1)


def nnguide_plain(c):
    bank = unit(c.phi_train) * -energy(c.z_train)[:, None]
    guidance = np.sort(unit(c.phi) @ bank.T, axis=1)[:, -9:].mean(1)
    return -guidance * -energy(c.z)


def fdbd_plain(c):
    found = []
    for phi, z in zip(c.phi, c.z, strict=True):
        j = z.argmax()
        terms = [abs(z[k] - z[j]) / np.linalg.norm(c.w[:, k] - c.w[:, j]) for k in range(NUM_CLASSES) if k != j]
        found.append(-np.sum(terms) / np.linalg.norm(phi - c.phi_train.mean(0)))
    return np.array(found)


FORMULAS = {
    "msp": lambda c: -p_of(c.z).max(1),
    "max_logit": lambda c: -c.z.max(1),
    "energy": lambda c: energy(c.z),
    "entropy": lambda c: -np.sum(p_of(c.z) * np.log(p_of(c.z)), axis=1),
    "gen": gen_plain,
    "odin": odin_plain,
    "mahalanobis": lambda c: class_distances_plain(c).min(1),
    "relative_mahalanobis": relative_plain,
    "knn": knn_plain,
    "vim": vim_plain,
    "react": react_plain,
    "dice": dice_plain,
    "ash": ash_plain,
    "scale": scale_plain,
    "gradnorm": gradnorm_plain,
    "kl_matching": kl_plain,
    "she": she_plain,
    "nnguide": nnguide_plain,
    "fdbd": fdbd_plain,
}
# equal to these numbers, not only in order
EQUAL = sorted(set(FORMULAS) - {"msp", "odin", "gradnorm", "fdbd"})


@pytest.mark.parametrize("name", DETECTORS)
def test_order_is_that_of_the_formula(case, scores, name):
    assert_same_order(scores[name], FORMULAS[name](case))


@pytest.mark.parametrize("name", EQUAL)
def test_numbers_are_those_of_the_formula(case, scores, name):
    np.testing.assert_allclose(scores[name], FORMULAS[name](case), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("variant", "factor"), [("p", 0.0), ("s", 1.0)])
def test_other_variants_of_ash_follow_their_formulas(case, variant, factor):
    expected = np.zeros_like(case.phi)
    for row, phi in zip(expected, case.phi, strict=True):
        kept = np.argsort(-phi)[:5]
        row[kept] = phi[kept] * np.exp(factor * phi.sum() / phi[kept].sum())
    got = ood.ASH(variant, percentile=60).fit(case.model).score(case.x)
    np.testing.assert_allclose(got, energy(expected @ case.w + case.b), rtol=1e-6)


# --- pytorch-ood ------------------------------------------------------------------------------------------------------


def pytorch_scores(c):
    """{name: scores} of pytorch-ood on the same features, logits and weights."""
    torch = pytest.importorskip("torch")
    po = pytest.importorskip("pytorch_ood.detector")
    tensor = lambda array: torch.tensor(array, dtype=torch.float64)  # noqa: E731
    z, z_train, phi, phi_train, y = map(tensor, (c.z, c.z_train, c.phi, c.phi_train, c.y))
    y = y.long()

    class Head(torch.nn.Linear):
        def forward(self, x):  # some detectors make float32 of the features
            return super().forward(x.double())

    head = Head(NUM_FEATURES, NUM_CLASSES).double()
    with torch.no_grad():
        head.weight.copy_(tensor(c.w.T))
        head.bias.copy_(tensor(c.b))
    body = torch.nn.Sequential()
    for layer in c.model.layers[:2]:
        act = torch.nn.ReLU() if layer.name == "first" else torch.nn.Softplus()
        body.extend([torch.nn.Linear(*layer.kernel.shape).double(), act])
        with torch.no_grad():
            body[-2].weight.copy_(tensor(np.asarray(layer.kernel).T))
            body[-2].bias.copy_(tensor(np.asarray(layer.bias)))
    flat = lambda maps: head(maps.flatten(1))  # noqa: E731
    maps, same = phi[:, :, None, None], torch.nn.Identity()
    on_features = {
        "mahalanobis": po.Mahalanobis(None),
        "relative_mahalanobis": po.RMD(None),
        "knn": po.KNN(None, k=7),
        "vim": po.ViM(None, 5, head.weight, head.bias),
        "dice": po.DICE(None, head.weight.double(), head.bias, p=0.9),
        "she": po.SHE(same, head),
        "nnguide": po.NNGuide(same, head, k=9),
        "fdbd": po.fDBD(same, head),
    }
    found = {}
    for name, detector in on_features.items():
        torch.set_default_dtype(torch.float32 if name == "dice" else torch.float64)
        found[name] = detector.fit_features(phi_train, y).predict_features(phi)
    found |= {
        "msp": po.MaxSoftmax.score(z),
        "max_logit": po.MaxLogit.score(z),
        "energy": po.EnergyBased.score(z),
        "entropy": po.Entropy.score(z),
        "gen": po.GEN.score(z, gamma=0.1, M=3),
        "kl_matching": po.KLMatching(None).fit_logits(z_train, y).predict_logits(z),
        "react": po.ReAct(same, head, percentile=0.9).fit_feature_maps(phi_train, y).predict_feature_maps(phi),
        "ash": po.ASH(same, flat, variant="ash-b", percentile=0.6).predict_feature_maps(maps),
        "scale": po.SCALE(same, flat, percentile=0.85).predict_feature_maps(maps),
        "gradnorm": po.GradNorm(head, param_filter=lambda name: name == "weight").predict(phi),
        "odin": po.ODIN(torch.nn.Sequential(body, head), eps=0.02, temperature=10.0, norm_std=[0.5] * 8).predict(
            tensor(c.x)
        ),
    }
    return {name: value.detach().numpy() for name, value in found.items()}


@pytest.fixture(scope="module")
def reference(case):
    torch = pytest.importorskip("torch")
    yield pytorch_scores(case)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", DETECTORS)
def test_order_is_that_of_pytorch_ood(scores, reference, name):
    assert_same_order(scores[name], reference[name])


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    z = np.array([[np.log(3.0), 0.0], [0.0, 0.0]])  # p = (3/4, 1/4) and (1/2, 1/2)
    assert ood.msp.score(z).tolist() == pytest.approx([-np.log(3), 0.0])
    assert ood.max_logit.score(z).tolist() == pytest.approx([-np.log(3), 0.0])
    assert ood.energy.score(z).tolist() == pytest.approx([-np.log(4), -np.log(2)])
    assert ood.energy.score(2 * z, temperature=2.0).tolist() == pytest.approx([-2 * np.log(4), -2 * np.log(2)])
    assert ood.entropy.score(z)[1] == pytest.approx(np.log(2))
    assert gen.score(z, gamma=0.5).tolist() == pytest.approx([2 * np.sqrt(3) / 4, 1.0])
    assert gen.score(z, gamma=0.5, num_largest=1).tolist() == pytest.approx([np.sqrt(3) / 4, 0.5])
    assert ood.gradnorm.score([[1.0, -2.0], [1.0, 1.0]], z).tolist() == pytest.approx([-3.0, 0.0])
    assert odin.score(1000 * z).tolist() == pytest.approx([-np.log(3), 0.0])


def test_energies_of_shaped_features_by_hand():
    phi, w, b = np.array([[4.0, 1.0, 2.0, 1.0]]), np.eye(4), np.zeros(4)
    assert ash.shape(phi, 2, "p").tolist() == [[4.0, 0.0, 2.0, 0.0]]
    assert ash.shape(phi, 2, "b").tolist() == [[4.0, 0.0, 4.0, 0.0]]
    assert ash.shape(phi, 2, "s")[0].tolist() == pytest.approx([4 * np.exp(8 / 6), 0.0, 2 * np.exp(8 / 6), 0.0])
    equal = ash.shape(np.tile([0.0, 1.0], (1, 50)), 30, "p")[0]
    assert np.flatnonzero(equal).tolist() == list(range(1, 60, 2))  # the first of equal ones
    e = np.exp(8 / 6)
    assert ood.scale.score(phi, w, b, 2)[0] == pytest.approx(-np.log(np.sum(np.exp(e * phi))))
    assert ood.react.score(phi, w, b, 1.5)[0] == pytest.approx(-np.log(2 * np.exp(1.5) + 2 * np.exp(1)))
    mask = ood.dice.fit_mask(phi, w, percentile=50)  # 4, 1, 2, 1 of 16 contributions are above 0
    assert mask.tolist() == np.eye(4, dtype=bool).tolist()
    assert ood.dice.fit_mask(phi, w, percentile=90).sum() == 2
    assert ash.num_kept(10, 90) == 1
    assert ash.num_kept(512, 90) == 51


def test_fdbd_leaves_out_boundaries_between_classes_with_the_same_weights():
    w = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    norms = fdbd.boundary_norms(w)
    assert norms[0].tolist() == pytest.approx([0.0, 0.0, np.sqrt(5)])
    score = fdbd.score(np.array([[3.0, 0.0]]), np.array([[3.0, 3.0, 0.0]]), norms, np.zeros(2))
    assert score.tolist() == pytest.approx([-3 / np.sqrt(5) / 3])


def test_fdbd_is_finite_at_the_mean():
    norms = fdbd.boundary_norms(np.eye(2))
    assert np.isfinite(fdbd.score(np.zeros((1, 2)), np.array([[1.0, 0.0]]), norms, np.zeros(2))).all()


def test_kl_template_of_a_class_that_is_never_predicted_is_one_hot():
    z = np.log([[0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    templates = np.exp(kl_matching.fit_templates(z))
    np.testing.assert_allclose(templates, [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.0, 0.0, 1.0]], atol=1e-12)
    # certain of class 2, and in between
    got = kl_matching.score([[0.0, 0.0, 800.0], [0.0, 0.0, 0.0]], kl_matching.fit_templates(z))
    assert got[0] == pytest.approx(0.0, abs=1e-12)
    assert got[1] == pytest.approx(np.mean(np.log(1 / 3 / np.array([0.7, 0.2, 0.1]))))


def test_she_pattern_of_a_class_without_correct_samples_comes_from_its_other_samples():
    features = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 7.0]])
    predicted, labels = np.array([0, 0, 0, 0]), np.array([0, 0, 1, 1])
    assert she.fit_patterns(features, predicted, labels, 3).tolist() == [[2.0, 0.0], [0.0, 6.0], [2.0, 0.0]]


def test_mahalanobis_by_hand():
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [10.0, 2.0], [10.0, -2.0]])
    found = ood.mahalanobis.fit_classes(features, np.array([0, 0, 4, 4]))  # classes 1 to 3 have no samples
    # covariance within the classes: diag(1/2, 2)
    got = ood.mahalanobis.score([[0.0, 0.0], [1.0, 2.0], [10.0, 1.0]], **found)
    assert got.tolist() == pytest.approx([0.0, 4.0, 0.5])


def test_knn_takes_the_kth_neighbour_on_the_unit_sphere():
    bank = ood.knn.unit_rows([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    got = ood.knn.score([[5.0, 0.0], [0.0, 0.0]], bank, 2)
    assert got.tolist() == pytest.approx([np.sqrt(2), 1.0])  # a row without direction is in the centre


ON_LOGITS = {
    "msp": ood.msp.score,
    "max_logit": ood.max_logit.score,
    "energy": ood.energy.score,
    "entropy": ood.entropy.score,
    "gen": gen.score,
    "kl_matching": lambda z: kl_matching.score(z, kl_matching.fit_templates(z)),
    "gradnorm": lambda z: ood.gradnorm.score(np.ones((len(z), 3)), z),
}


@settings(max_examples=30, deadline=None)
@given(data=st.data(), num_classes=st.sampled_from([2, 3, 10, 1000]), scale=st.sampled_from([0.0, 1.0, 30.0, 1e3, 1e5]))
def test_scores_of_any_logits_are_finite_and_move_with_the_rows(data, num_classes, scale):
    r = np.random.RandomState(data.draw(st.integers(0, 2**31 - 1)))
    z = (scale * r.randn(5, num_classes)).round(data.draw(st.sampled_from([0, 8])))
    for name, score in ON_LOGITS.items():
        found = score(z)
        assert found.shape == (5,), name
        assert np.isfinite(found).all(), name
        np.testing.assert_allclose(score(z[::-1]), found[::-1], rtol=1e-6, atol=1e-9, err_msg=name)
        if name not in ("max_logit", "energy"):  # a softmax does not see what is added to all logits
            np.testing.assert_allclose(score(z + 7.0), found, rtol=1e-5, atol=1e-6, err_msg=name)


def test_saturated_softmax_makes_no_ties():
    z = np.array([[40.0, 0.0, -1.0], [41.0, 0.0, -1.0], [300.0, 0.0, -1.0], [600.0, 0.0, -1.0]])
    for name in ("msp", "max_logit", "energy", "entropy", "gen"):
        assert np.all(np.diff(ON_LOGITS[name](z)) < 0), name


# --- strange things score high ----------------------------------------------------------------------------------------


def identity_model():
    """Features are the inputs; classes 0 and 1 lie along the first two axes."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="features"), layers.Dense(2)])
    model.layers[0].set_weights([np.eye(4), np.zeros(4)])
    model.layers[1].set_weights([np.eye(4, 2), np.zeros(2)])
    return model


@pytest.mark.parametrize("name", DETECTORS)
def test_far_away_scores_stranger_than_known(name):
    r = np.random.RandomState(0)
    y = np.arange(200) % 2
    x = (5 * np.eye(4)[y] + 0.1 * np.abs(r.randn(200, 4))).astype("float32")
    settings = {"ash": {"percentile": 50}, "scale": {"percentile": 50}, "dice": {"percentile": 50}, "vim": {"dim": 2}}
    detector = DETECTORS[name](**settings.get(name, {})).fit(identity_model(), (x, y))
    strange = np.array([[0.2, 0.2, 1.0, 0.0], [0.0, 0.1, 0.5, 3.0]], dtype="float32")
    assert detector.score(strange).min() > np.median(detector.score(x))


@pytest.mark.parametrize("name", ["mahalanobis", "vim", "knn"])
def test_the_farther_the_stranger(name):
    r = np.random.RandomState(0)
    y = np.arange(200) % 2
    x = (5 * np.eye(4)[y] + 0.1 * r.randn(200, 4)).astype("float32")
    settings = {"vim": {"dim": 2}}
    detector = DETECTORS[name](**settings.get(name, {})).fit(identity_model(), (x, y))
    scores = detector.score(np.array([[5, 0, t, 0] for t in (0, 1, 2, 4, 8)], dtype="float32"))
    assert np.all(np.diff(scores) > 0)


# --- the contract of all detectors ------------------------------------------------------------------------------------


def damaged_models():
    """Models with dead channels, with one feature left, with a class that always wins, and with huge logits."""
    dead = classifier()
    kernel, bias = dead.layers[1].get_weights()
    dead.layers[1].set_weights([kernel, np.where(np.arange(NUM_FEATURES) < 7, -100.0, bias)])
    low_rank = classifier()
    kernel, bias = low_rank.layers[1].get_weights()
    kernel[:, 3:] = kernel[:, :1]
    low_rank.layers[1].set_weights([kernel, np.where(np.arange(NUM_FEATURES) < 3, bias, bias[0])])
    one_class = classifier()
    one_class.layers[3].bias.assign([50.0, 0, 0, 0, 0])
    saturated = classifier()
    saturated.layers[3].kernel.assign(200.0 * saturated.layers[3].kernel)
    often_zero = classifier()
    often_zero.layers[1].bias.assign(np.full(NUM_FEATURES, -0.7))
    return {
        "dead": dead,
        "low rank": low_rank,
        "one class": one_class,
        "saturated": saturated,
        "often zero": often_zero,
    }


DAMAGED = damaged_models()
# the default percentiles of these leave nothing of so few features that are so often zero
MILD = {"react": {"percentile": 99}, "ash": {"percentile": 50}, "scale": {"percentile": 50}}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", DETECTORS)
def test_scores_are_finite_and_differ_on_damaged_models(case, name, damage):
    model = DAMAGED[damage]
    y = np.where(np.arange(300) % 3 > 0, np.asarray(model(case.x_train)).argmax(1), 1)  # some classes have no samples
    detector = DETECTORS[name](**MILD.get(name, {})).fit(model, (case.x_train, y))
    scores = detector.score(4 * case.x)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 5


def test_inputs_of_zeros_are_scored(case, fitted):
    scores = ood.score_all(list(fitted.values()), np.zeros((3, 8), "float32"))
    assert all(np.ptp(value) < 1e-6 for value in scores.values())


@pytest.mark.parametrize("name", DETECTORS)
def test_permuted_samples_give_permuted_scores(case, fitted, scores, name):
    order = np.random.RandomState(7).permutation(len(case.x))
    np.testing.assert_allclose(fitted[name].score(case.x[order]), scores[name][order], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_batches_and_data_sets_do_not_matter(case, fitted, scores, name):
    np.testing.assert_allclose(fitted[name].score(case.x, batch_size=7), scores[name], rtol=2e-5, atol=1e-6)
    data = tf.data.Dataset.from_tensor_slices((case.x[:20], np.zeros(20))).batch(8)
    np.testing.assert_allclose(fitted[name].score(data), scores[name][:20], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_saved_and_loaded_detector_gives_the_same_scores(case, fitted, name, tmp_path):
    expected = fitted[name].score(case.x)
    fitted[name].save(tmp_path / "folder" / name)
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [f"{name}.json", f"{name}.npz"]
    loaded = ood.load(tmp_path / "folder" / name, case.model)
    np.testing.assert_allclose(loaded.score(case.x), expected, rtol=1e-12)  # BLAS sums in an order of its own
    assert loaded.get_config() == fitted[name].get_config()
    assert loaded.choices == fitted[name].choices
    assert loaded.fingerprint == fitted[name].fingerprint
    assert str(loaded.health) == str(fitted[name].health)


@pytest.mark.parametrize("name", DETECTORS)
def test_config_makes_the_same_detector(name):
    detector = DETECTORS[name](**SETTINGS.get(name, {}), name="other")
    again = DETECTORS[name](**json.loads(json.dumps(detector.get_config())))
    assert again.get_config() == detector.get_config()
    assert again.name == "other"


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_is_documented_with_its_paper(name):
    cls = DETECTORS[name]
    assert "Source: " in cls.__doc__
    assert cls.__module__ == f"tfprune.uncertainty.detectors.{name}"
    for argument in set(cls().get_config()) - {"name", "feature_layer"}:
        assert f" {argument}: " in cls.__doc__


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_of_other_weights_is_refused(case, name, tmp_path):
    model = classifier()
    detector = DETECTORS[name](**SETTINGS.get(name, {})).fit(model, (case.x_train, case.y))
    detector.save(tmp_path / name)
    model.layers[0].bias.assign_add(np.full(20, 0.01))
    with pytest.raises(ValueError, match=rf"{name} was fitted on other weights.*refit on this one"):
        detector.score(case.x)
    with pytest.raises(ValueError, match="refit"):
        ood.load(tmp_path / name, model)
    assert np.isfinite(detector.fit(model, (case.x_train, case.y)).score(case.x)).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_unfitted_detector_is_refused(case, name):
    with pytest.raises(ValueError, match=rf"{name} is not fitted. Call fit"):
        DETECTORS[name]().score(case.x)
    with pytest.raises(ValueError, match=rf"{name} (is not|was) fitted"):
        DETECTORS[name]().bind(case.model)


@pytest.mark.parametrize("name", [name for name in DETECTORS if DETECTORS[name].learns_from])
def test_detector_that_learns_needs_data_and_remembers_them(case, fitted, name):
    with pytest.raises(ValueError, match=rf"learn \({name}\) need in-distribution data"):
        DETECTORS[name]().fit(case.model)
    seen = Fingerprint.of(case.x_train)
    assert fitted[name].fingerprint.overlap(seen) == 1.0
    assert fitted[name].fingerprint.num_samples == 300
    assert fitted[name].fingerprints == [fitted[name].fingerprint]
    assert fitted[name].health["num_samples"] == 300


@pytest.mark.parametrize("name", [name for name in DETECTORS if not DETECTORS[name].learns_from])
def test_detector_that_learns_nothing_needs_no_data(case, fitted, name):
    assert DETECTORS[name](**SETTINGS.get(name, {})).fit(case.model).score(case.x).shape == (150,)
    assert fitted[name].fingerprint is None
    assert fitted[name].fingerprints == []
    assert fitted[name].health is None


@pytest.mark.parametrize("name", [name for name in DETECTORS if DETECTORS[name].learns_from == "samples"])
def test_labels_are_looked_at_only_where_needed(case, scores, name):
    detector = DETECTORS[name](**SETTINGS.get(name, {})).fit(case.model, case.x_train)
    np.testing.assert_allclose(detector.score(case.x), scores[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in DETECTORS if DETECTORS[name].learns_from == "labels"])
def test_labels_are_asked_for_where_needed(case, name):
    with pytest.raises(TypeError, match=f"data for {name} must be a pair"):
        DETECTORS[name]().fit(case.model, case.x_train)


def test_names_tell_two_detectors_of_a_class_apart(case):
    fitted = ood.fit_all([ood.ASH(name="ash_b"), ood.ASH("s", name="ash_s")], case.model)
    assert list(ood.score_all(fitted, case.x)) == ["ash_b", "ash_s"]
    with pytest.raises(ValueError, match="different names"):
        ood.fit_all(["ash", ood.ASH("s")], case.model)
    with pytest.raises(ValueError, match="different names"):
        ood.fit_all([], case.model)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"Unknown detector 'mps'. Expected one of 'msp'"):
        ood.get("mps")
    with pytest.raises(TypeError, match="name of a detector"):
        ood.get(ood.MSP)


# --- one forward pass -------------------------------------------------------------------------------------------------


SEEN = []  # Keras would make a list of its own of a layer's attribute


class Counting(layers.Layer):
    """Counts the samples that pass it (in graphs, too)."""

    def call(self, x):
        def count(size):
            SEEN.append(int(size))
            return size

        with tf.control_dependencies([tf.py_function(count, [tf.shape(x)[0]], tf.int32)]):
            return tf.identity(x)

    def compute_output_shape(self, shape):
        return shape


def test_all_detectors_share_one_forward_pass(case):
    inputs = keras.Input((8,))
    x = layers.Dense(NUM_FEATURES, activation="relu")(Counting()(inputs))
    model = keras.Model(inputs, layers.Dense(NUM_CLASSES)(x))
    SEEN.clear()
    names = [name for name in DETECTORS if name != "odin"]
    fitted = ood.fit_all(names, model, (case.x_train, case.y), batch_size=50)
    assert sum(SEEN) == 300 + 8  # eight to see that the head is the model's
    SEEN.clear()
    ood.score_all(fitted, case.x, batch_size=50)
    assert SEEN == [50, 50, 50]
    SEEN.clear()
    ood.get("odin").fit(model).score(case.x, batch_size=50)
    assert sum(SEEN) == 3 * 150 + 8  # the logits, the gradient and the perturbed inputs


def test_panel_gives_the_logits_and_all_scores_of_a_batch(case, fitted, scores):
    logits, found = ood.Panel(fitted.values()).with_scores(case.x)
    np.testing.assert_allclose(logits, case.z, rtol=1e-6, atol=1e-7)
    assert list(found) == list(DETECTORS)
    for name in found:
        np.testing.assert_allclose(found[name], scores[name], rtol=1e-6, atol=1e-9)


def test_panel_of_two_models_is_refused(case):
    with pytest.raises(ValueError, match="fitted on the same model"):
        ood.Panel([ood.MSP().fit(case.model), ood.Energy().fit(classifier(seed=1))])


# --- pruned models ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pruned(case):
    masked = tfprune.wrap(case.model)
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=0.4))
    return masked, tfprune.shrink(masked)


@pytest.mark.parametrize("name", DETECTORS)
def test_masked_model_and_its_ticket_give_the_same_scores(case, pruned, name):
    data, settings = (case.x_train, case.y), SETTINGS.get(name, {})
    masked, small = (DETECTORS[name](**settings).fit(model, data) for model in pruned)
    assert masked.choices == pytest.approx(small.choices) if name == "react" else masked.choices == small.choices
    a, b = masked.score(case.x), small.score(case.x)
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    if DETECTORS[name].learns_from:
        assert masked.health["num_samples"] == 300
        assert masked.health.get("num_features") == small.health.get("num_features")


def test_wrapped_model_that_nothing_is_pruned_of_gives_the_scores_of_the_model(case, fitted, scores):
    again = [DETECTORS[name](**SETTINGS.get(name, {})) for name in DETECTORS]
    found = ood.score_all(ood.fit_all(again, tfprune.wrap(case.model), (case.x_train, case.y)), case.x)
    for name in DETECTORS:
        np.testing.assert_allclose(found[name], scores[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_dense_statistics_are_refused_on_the_pruned_model(case, pruned):
    detector = ood.KNN().fit(case.model, (case.x_train, case.y))
    with pytest.raises(ValueError, match="before or after pruning"):
        detector.bind(pruned[1])
    masked = tfprune.wrap(case.model)
    detector.fit(masked, (case.x_train, case.y))
    tfprune.set_masks(masked, tfprune.compute_masks(masked, ratio=0.4))  # masks count as weights
    with pytest.raises(ValueError, match="refit"):
        detector.score(case.x)


# --- ODIN's gradient --------------------------------------------------------------------------------------------------


def test_odin_steps_towards_confidence_and_divides_by_the_input_std():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.layers[0].set_weights([np.array([[1.0, -1.0], [-2.0, 0.5], [0.0, 0.0]]), np.array([0.3, 0.0])])
    x = np.array([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]], dtype="float32")  # predicted: class 0, class 1
    detector = ood.ODIN(epsilon=0.1, input_std=[0.5, 1.0, 2.0]).fit(model)
    # class 0 grows with the first input and falls with the second; the third changes nothing and stays
    expected = x + 0.1 * np.array([[1, -1, 0], [-1, 1, 0]]) / [0.5, 1.0, 2.0]
    np.testing.assert_allclose(detector.perturbed(x), expected, rtol=1e-6)
    before, after = ood.MSP().fit(model).score(x), ood.MSP().fit(model).score(expected.astype("float32"))
    assert np.all(after < before)


def test_odin_step_is_that_of_a_gradient_tape(case):
    head = keras.Model(case.model.inputs[0], case.model.layers[3].output)
    x = tf.constant(case.x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = tf.cast(head(x), tf.float64) / 1000.0
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.argmax(z, axis=1), z))
    expected = x - 0.0014 * tf.sign(tape.gradient(loss, x))
    np.testing.assert_allclose(ood.ODIN().fit(case.model).perturbed(case.x), expected, rtol=1e-6, atol=1e-7)


def test_odin_moves_inputs_under_half_precision_and_from_integers():
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    x = draw(0, 20)
    moved = np.asarray(ood.ODIN(temperature=1e8).fit(model).perturbed(x)) - x
    assert np.mean(np.abs(moved) > 0.001) > 0.9  # a gradient divided by the temperature would be 0 in float16
    pixels = np.arange(16, dtype="uint8").reshape(2, 8)
    assert np.isfinite(ood.ODIN().fit(model).score(pixels)).all()


def test_odin_without_a_step_ranks_as_a_softmax_of_high_temperature(case):
    scores = ood.ODIN(epsilon=0.0, temperature=3.0).fit(case.model).score(case.x)
    assert_same_order(scores, -p_of(case.z / 3.0).max(1))


def test_odin_needs_float_inputs_and_a_keras_model():
    tokens = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(9, 3), layers.Flatten(), layers.Dense(2)]
    )
    with pytest.raises(ValueError, match=r"odin changes inputs by small numbers.*int32"):
        ood.ODIN().fit(tokens)
    with pytest.raises(ValueError, match="odin needs gradients"):
        ood.ODIN().fit(Predictor(from_logits=True))


class Predictor:
    """Anything with .predict."""

    def __init__(self, from_logits):
        self.from_logits = from_logits

    def predict(self, x):
        z = np.stack([x[:, 0], -x[:, 1], x[:, 2]], axis=1)
        return z if self.from_logits else p_of(z)


def test_odin_refuses_bad_settings():
    with pytest.raises(ValueError, match=r"epsilon must be a number of at least 0. Received: epsilon=-1"):
        ood.ODIN(epsilon=-1)
    with pytest.raises(ValueError, match="input_std must hold numbers above 0"):
        ood.ODIN(input_std=[1.0, 0.0])
    with pytest.raises(ValueError, match="temperature must be a number above 0"):
        ood.ODIN(temperature=0)


# --- refusals and choices ---------------------------------------------------------------------------------------------


def test_settings_out_of_range_are_refused():
    for make in (ood.ReAct, ood.DICE, ood.ASH, ood.SCALE):
        with pytest.raises(ValueError, match=r"percentile must be in \[0, 100\). Received: percentile=100"):
            make(percentile=100)
    with pytest.raises(ValueError, match="num_neighbors must be an integer of at least 1"):
        ood.KNN(num_neighbors=0)
    with pytest.raises(ValueError, match="dim must be an integer of at least 1"):
        ood.ViM(dim=2.5)
    with pytest.raises(ValueError, match="variant must be one of"):
        ood.ASH("q")
    with pytest.raises(ValueError, match=r"bank_ratio must be in \(0, 1\]"):
        ood.NNGuide(bank_ratio=2)
    with pytest.raises(ValueError, match=r"Energy reads no features. Received: feature_layer='second'"):
        ood.Energy(feature_layer="second")


def test_more_than_there_is_is_refused(case):
    data = (case.x_train, case.y)
    with pytest.raises(ValueError, match="knn has num_neighbors=301, but there are only 300 training samples"):
        ood.KNN(num_neighbors=301).fit(case.model, data)
    with pytest.raises(ValueError, match="nnguide has num_neighbors=301"):
        ood.NNGuide(num_neighbors=301).fit(case.model, data)
    with pytest.raises(ValueError, match="gen has num_largest=6, but there are only 5 classes"):
        ood.GEN(num_largest=6).fit(case.model).score(case.x)
    with pytest.raises(ValueError, match=r"vim needs 0 < dim < 12, the rank of the features. Received: dim=12"):
        ood.ViM(dim=12).fit(case.model, data)
    with pytest.raises(
        ValueError, match=r"ash keeps none of 12 features with percentile=99. Choose a percentile below"
    ):
        ood.ASH(percentile=99).fit(case.model)


def test_choices_follow_the_rank_and_the_data(case):
    data = (case.x_train, case.y)
    detector = ood.ViM().fit(DAMAGED["low rank"], data)
    rank = detector.choices["rank"]
    assert rank < 5
    assert detector.choices["dim"] == rank // 2
    with pytest.raises(ValueError, match=f"0 < dim < {rank}"):
        ood.ViM(dim=rank).fit(DAMAGED["low rank"], data)
    assert ood.KNN().fit(case.model, data).choices == {"num_neighbors": 30}  # half of 300 / 5
    assert ood.KNN().fit(case.model, (case.x_train[:9], case.y[:9])).choices == {"num_neighbors": 1}
    assert ood.NNGuide().fit(case.model, data).choices == {"num_neighbors": 100, "bank_size": 100}
    short = ood.NNGuide(bank_ratio=0.5).fit(case.model, (case.x_train[:40], case.y[:40]))
    assert short.choices == {"num_neighbors": 40, "bank_size": 40}
    scaled = ood.SCALE().fit(case.model)
    assert scaled.choices == {"num_kept": 2}


def test_bank_of_nnguide_is_spread_over_all_data(case):
    detector = ood.NNGuide(num_neighbors=3).fit(case.model, case.x_train)
    rows = [0, 150, 299]  # (0 + 299) / 2 rounds to the even one
    np.testing.assert_allclose(
        detector.statistics["bank"], unit(case.phi_train[rows]) * -energy(case.z_train[rows])[:, None], rtol=1e-5
    )


def test_constant_features_are_refused_with_reason_and_remedy(case):
    model = classifier()
    model.layers[1].bias.assign(np.full(NUM_FEATURES, -1000.0))
    for name in DETECTORS:
        if "features" in DETECTORS[name].needs and DETECTORS[name].learns_from:
            detector = DETECTORS[name](**SETTINGS.get(name, {}))
            with pytest.raises(
                ValueError, match=rf"{name} cannot be fitted: the model gives the same.*12 of 12 are dead"
            ):
                detector.fit(model, (case.x_train, case.y))
            with pytest.raises(ValueError, match="not fitted"):
                detector.score(case.x)


def test_failed_fit_leaves_the_detector_unfitted(case):
    detector = ood.KNN(num_neighbors=100).fit(case.model, case.x_train)
    with pytest.raises(ValueError, match="only 20 training samples"):
        detector.fit(case.model, case.x_train[:20])
    with pytest.raises(ValueError, match="knn is not fitted"):
        detector.score(case.x)
    detector.fit(case.model, case.x_train)
    with pytest.raises(ValueError, match="need in-distribution data"):
        detector.fit(classifier())
    with pytest.raises(ValueError, match="knn is not fitted"):
        detector.score(case.x)


def test_what_nothing_can_be_learnt_from_is_refused(case):
    model = classifier()
    with pytest.raises(ValueError, match="mahalanobis cannot be fitted: within the classes all features are constant"):
        ood.Mahalanobis().fit(model, (np.repeat(case.x[:5], 4, axis=0), np.repeat(np.arange(5), 4)))
    with pytest.raises(ValueError, match="she cannot be fitted: none of the 300 samples is classified correctly"):
        ood.SHE().fit(case.model, (case.x_train, (case.z_train.argmax(1) + 1) % NUM_CLASSES))
    with pytest.raises(ValueError, match=r"at least two samples. Received: 1"):
        ood.KNN().fit(model, case.x_train[:1])
    with pytest.raises(ValueError, match="at least one sample"):
        ood.MSP().fit(model).score(case.x[:0])
    with pytest.raises(ValueError, match="react cannot be fitted: clipped at 0, the 20th percentile"):
        ood.ReAct(percentile=20).fit(DAMAGED["often zero"], case.x_train)
    model = classifier()
    model.layers[3].bias.assign(np.full(NUM_CLASSES, -100.0))
    with pytest.raises(ValueError, match=r"vim cannot be fitted: the largest logit is -.* on average"):
        ood.ViM().fit(model, case.x_train)
    model.layers[3].kernel.assign(np.ones((NUM_FEATURES, NUM_CLASSES)))
    with pytest.raises(ValueError, match="fdbd cannot be fitted: all classes have the same weights"):
        ood.FDBD().fit(model, case.x_train)


def test_dice_without_a_weight_is_refused():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, activation="relu"), layers.Dense(2)])
    model.layers[0].set_weights([np.eye(2), np.zeros(2)])
    model.layers[1].set_weights([np.ones((2, 2)), np.zeros(2)])
    x = np.array([[1.0, 3.0], [3.0, 1.0]], dtype="float32")  # every weight contributes 2
    with pytest.raises(ValueError, match="dice cannot be fitted: no weight contributes more than the 90th"):
        ood.DICE().fit(model, x)


def test_scores_that_are_not_finite_are_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3, name="features"), layers.Dense(2)])
    model.layers[0].set_weights([np.eye(3), np.zeros(3)])
    x = np.array([[-5000.0, -6000.0, 1.0], [-1.0, -5e3, -1e-3]], dtype="float32")  # exp(sum / largest) overflows
    with pytest.raises(ValueError, match=r"scale gave 1 of 2 scores that are not finite.*Look at its health"):
        ood.SCALE(percentile=60).fit(model).score(x)


def test_vim_origin_is_where_the_logits_vanish():
    w, b = np.random.RandomState(0).randn(6, 3), np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(vim.origin_of(w, b) @ w + b, 0.0, atol=1e-12)
