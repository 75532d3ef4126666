"""Is the last-layer Laplace approximation that of laplace-torch, and that of its formulas?"""

import json
import math

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.evaluation import evaluate
from tfprune.uncertainty import laplace as laplace_module
from tfprune.uncertainty.laplace import LastLayerLaplace
from tfprune.uncertainty.leak import find_fingerprints

R = np.random.RandomState(0)
X, Y = R.randn(300, 5).astype("float32"), R.randint(0, 4, 300)
TEST = 2 * R.randn(30, 5).astype("float32")
STRUCTURES = ["full", "diag", "kfac"]


def classifier(num_classes=4, use_bias=True, head=None, units=7, seed=0):
    """A network with large last weights, so that its probabilities are far from even."""
    keras.utils.set_random_seed(seed)
    last = layers.Dense(num_classes, head, use_bias, name="head", kernel_initializer=keras.initializers.Orthogonal(3.0))
    model = keras.Sequential([keras.Input((5,)), layers.Dense(units, activation="relu", name="hidden"), last])
    if use_bias:
        last.bias.assign(np.linspace(-1, 1, num_classes))
    return model


def features_of(model, x):
    return keras.ops.convert_to_numpy(model.layers[0](x)).astype(np.float64)


def head_of(model):
    """Weights (features, classes) and bias of the last layer, float64."""
    kernel, *bias = (np.asarray(weight, dtype=np.float64) for weight in model.layers[-1].get_weights())
    return kernel, bias[0] if bias else np.zeros(kernel.shape[1])


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


# --- against laplace-torch --------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    """PyTorch in float64: laplace-torch makes some tensors in the default type."""
    found = pytest.importorskip("torch")
    before = found.get_default_dtype()
    found.set_default_dtype(found.float64)
    yield found
    found.set_default_dtype(before)


def reference(torch, model, structure, prior_precision):
    """laplace-torch on the same head, with our features as its inputs, in float64."""
    laplace = pytest.importorskip("laplace")
    kernel, bias = head_of(model)
    use_bias = model.layers[-1].use_bias
    linear = torch.nn.Linear(*kernel.shape, bias=use_bias)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(kernel.T))
        if use_bias:
            linear.bias.copy_(torch.tensor(bias))
    data = torch.utils.data.TensorDataset(torch.tensor(features_of(model, X)), torch.tensor(Y))
    made = laplace.Laplace(
        torch.nn.Sequential(torch.nn.Identity(), linear),
        "classification",
        subset_of_weights="last_layer",
        hessian_structure={"kfac": "kron"}.get(structure, structure),
        prior_precision=prior_precision,
    )
    made.fit(torch.utils.data.DataLoader(data, batch_size=64))
    return made, lambda x: torch.tensor(features_of(model, x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_agrees_with_laplace_torch(torch, structure, use_bias):
    model = classifier(use_bias=use_bias)
    theirs, inputs = reference(torch, model, structure, 2.5)
    ours = LastLayerLaplace(structure, 2.5).fit(model, (X, Y))
    precision = theirs.posterior_precision
    precision = precision.to_matrix() if structure == "kfac" else precision
    assert ours.posterior_precision() == pytest.approx(precision.detach().numpy(), rel=1e-10, abs=1e-10)
    mean, covariance = (part.detach().numpy() for part in theirs._glm_predictive_distribution(inputs(TEST)))
    assert ours.logits(TEST)[0] == pytest.approx(mean, rel=1e-12)
    assert ours.logits(TEST)[1] == pytest.approx(covariance, rel=1e-10, abs=1e-12)
    probit = theirs(inputs(TEST), link_approx="probit").detach().numpy()
    assert ours.predict(TEST) == pytest.approx(probit, rel=1e-10)
    assert ours.log_marginal_likelihood() == pytest.approx(theirs.log_marginal_likelihood().item(), rel=1e-12)
    other = theirs.log_marginal_likelihood(inputs(X).new_tensor(0.3)).item()
    assert ours.log_marginal_likelihood(0.3) == pytest.approx(other, rel=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("structure", STRUCTURES)
def test_prior_precision_is_where_laplace_torch_ends_after_long_search(torch, structure):
    model = classifier()
    theirs, _ = reference(torch, model, structure, 1.0)
    theirs.optimize_prior_precision(method="marglik", n_steps=300, lr=0.1)
    ours = LastLayerLaplace(structure).fit(model, (X, Y))
    assert ours.prior_precision == pytest.approx(theirs.prior_precision.item(), rel=1e-4)
    assert ours.log_marginal_likelihood() >= theirs.log_marginal_likelihood().item() - 1e-9


# --- against formulas -------------------------------------------------------------------------------------------------


def one_weight(weight):
    kernel = keras.initializers.Constant(weight)
    return keras.Sequential(
        [keras.Input((1,)), layers.Dense(1, activation="sigmoid", use_bias=False, kernel_initializer=kernel)]
    )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_one_weight_by_hand(structure):
    laplace = LastLayerLaplace(structure, 1.0).fit(one_weight(1.0), (np.ones((1, 1)), np.ones(1)))
    # sigmoid(1) = 0.7310585786; curvature p (1 - p) = 0.1966119332; precision 1.1966119332
    assert np.ravel(laplace.posterior_precision()) == pytest.approx([1.1966119332])
    mean, covariance = laplace.logits(np.array([[2.0]]))
    assert (mean.item(), covariance.item()) == (pytest.approx(2.0), pytest.approx(4 / 1.1966119332))
    # 1 / sqrt(1 + pi / 8 / 1.1966119332) = 0.8676877; sigmoid(0.8676877) = 0.704276
    assert laplace.predict(np.ones((1, 1))) == pytest.approx(np.array([[0.2957320, 0.7042680]]), abs=1e-7)
    # log 0.7310585786 - (log 1.1966119332 + 1) / 2
    assert laplace.log_marginal_likelihood() == pytest.approx(-0.3132616875 - 0.5897470873)
    assert laplace.num_parameters == 1


def test_full_precision_is_the_hessian_of_the_loss():
    """For the last layer of a softmax the Gauss-Newton matrix is the Hessian itself."""
    model = classifier(num_classes=3, units=2)
    kernel, bias = head_of(model)
    features = features_of(model, X)
    rows = np.concatenate([kernel.T.ravel(), bias])

    def gradient(parameters):
        weights, shift = parameters[:6].reshape(3, 2), parameters[6:]
        excess = softmax(features @ weights.T + shift) - np.eye(3)[Y % 3]
        return np.concatenate([(excess.T @ features).ravel(), excess.sum(axis=0)])

    step = 1e-5 * np.eye(9)
    hessian = np.stack([(gradient(rows + s) - gradient(rows - s)) / 2e-5 for s in step])
    laplace = LastLayerLaplace("full", 0.7).fit(model, (X, Y % 3))
    assert laplace.posterior_precision() == pytest.approx(hessian + 0.7 * np.eye(9), abs=1e-5)


def test_diag_is_the_diagonal_of_full():
    model = classifier()
    full, diag = (LastLayerLaplace(structure, 1.0).fit(model, (X, Y)) for structure in ("full", "diag"))
    assert diag.posterior_precision() == pytest.approx(np.diag(full.posterior_precision()), rel=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_prior_precision_maximises_the_marginal_likelihood(structure):
    laplace = LastLayerLaplace(structure).fit(classifier(), (X, Y))
    found = scipy.optimize.minimize_scalar(
        lambda log_delta: -laplace.log_marginal_likelihood(math.exp(log_delta)), bounds=(-10, 10), method="bounded"
    )
    assert math.log(laplace.prior_precision) == pytest.approx(found.x, abs=1e-4)
    best = laplace.log_marginal_likelihood()
    assert best > max(laplace.log_marginal_likelihood(laplace.prior_precision * factor) for factor in (0.9, 1.1))
    # asking for another prior does not change the one in use
    assert laplace.log_marginal_likelihood() == best


@pytest.mark.parametrize("scale", [1e-6, 1e2])
def test_prior_precision_is_found_at_any_scale_of_the_weights(scale):
    model = classifier()
    for weight in model.layers[-1].weights:
        weight.assign(weight * scale)
    laplace = LastLayerLaplace("diag").fit(model, (X, Y))
    delta = laplace.prior_precision
    best = laplace.log_marginal_likelihood()
    assert all(laplace.log_marginal_likelihood(delta * factor) < best for factor in (0.5, 2.0))


def test_what_is_left_of_a_saturated_probability_counts():
    """At logit 50, 1 - p is 2e-22 and p is 1.0 in float64, but the curvature is not 0."""
    laplace = LastLayerLaplace("diag", 1e-40).fit(one_weight(50.0), (np.ones((1, 1)), np.ones(1)))
    assert laplace.logits(np.ones((1, 1)))[1].item() == pytest.approx(math.exp(50), rel=1e-10)
    three = classifier(num_classes=3)
    three.layers[-1].bias.assign([60.0, 0.0, 0.0])
    three.layers[-1].kernel.assign(np.zeros((7, 3)))
    laplace = LastLayerLaplace("diag", 1e-40).fit(three, (X[:1], Y[:1] * 0))
    # of the first class 1 - p is 2 exp(-60), of the others p is exp(-60)
    assert laplace.posterior_precision()[-3:] == pytest.approx(math.exp(-60) * np.array([2, 1, 1]), rel=1e-10)


# --- uncertainty ------------------------------------------------------------------------------------------------------


def entropy(p):
    return -np.sum(p * np.log(p), axis=-1)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_mutual_information_is_that_of_gaussian_logits(structure):
    laplace = LastLayerLaplace(structure, 0.3, num_samples=20_000).fit(classifier(), (X[:40], Y[:40]))
    known = laplace.predict_uncertainty(TEST[:4])
    mean, covariance = laplace.logits(TEST[:4])
    random = np.random.default_rng(5)
    for i in range(4):
        p = softmax(random.multivariate_normal(mean[i], covariance[i], size=20_000))
        assert known["mutual_information"][i] == pytest.approx(entropy(p.mean(axis=0)) - entropy(p).mean(), abs=0.01)
    assert known["mutual_information"].max() > 0.05
    assert np.array_equal(known["probabilities"], laplace.predict(TEST[:4]))
    assert known["entropy"] == pytest.approx(entropy(known["probabilities"]), abs=1e-9)


def test_a_narrow_prior_leaves_the_model_as_it_is():
    model = classifier(head="softmax")
    known = LastLayerLaplace("full", 1e12).fit(model, (X, Y)).predict_uncertainty(TEST)
    assert known["probabilities"] == pytest.approx(model.predict(TEST, verbose=0), abs=1e-6)
    assert known["mutual_information"] == pytest.approx(np.zeros(30), abs=1e-9)


def test_two_classes_become_less_sure_and_never_change_sides():
    model = classifier(num_classes=1, head="sigmoid")
    plain = model.predict(TEST, verbose=0)[:, 0]
    careful = LastLayerLaplace("full").fit(model, (X, Y % 2)).predict(TEST)[:, 1]
    assert np.all(np.abs(careful - 0.5) < np.abs(plain - 0.5))
    assert np.array_equal(careful > 0.5, plain > 0.5)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("size", [1, 13])
def test_no_number_depends_on_the_batch(structure, size, monkeypatch):
    laplace = LastLayerLaplace(structure, num_samples=50).fit(classifier(), (X, Y))
    whole = laplace.predict_uncertainty(TEST)
    monkeypatch.setattr(laplace_module, "_NUM_HELD", 50 * 4 * 2)  # two samples at a time
    parts = [laplace.predict_uncertainty(TEST[start : start + size]) for start in range(0, 30, size)]
    for key, values in whole.items():
        assert np.concatenate([part[key] for part in parts]) == pytest.approx(values, abs=1e-6)


def test_the_seed_decides_on_the_draws():
    model = classifier()
    one, same, other = (
        LastLayerLaplace(seed=seed).fit(model, (X, Y)).predict_uncertainty(TEST)["mutual_information"]
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)


# --- models and data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_masked_model_gives_what_its_ticket_gives(structure):
    masked = tfprune.wrap(classifier(units=10))
    tfprune.set_masks(masked, {"hidden": np.arange(10) % 3 == 0})
    ticket = tfprune.shrink(masked)
    by_mask, by_ticket = (LastLayerLaplace(structure).fit(model, (X, Y)) for model in (masked, ticket))
    assert by_mask.num_parameters == by_ticket.num_parameters == 4 * (4 + 1)
    assert by_mask.prior_precision == pytest.approx(by_ticket.prior_precision, rel=1e-5)
    assert by_mask.log_marginal_likelihood() == pytest.approx(by_ticket.log_marginal_likelihood(), rel=1e-5)
    ours, theirs = by_mask.predict_uncertainty(TEST), by_ticket.predict_uncertainty(TEST)
    for key, values in theirs.items():
        assert ours[key] == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_nothing_depends_on_how_the_data_come(structure):
    model = classifier()
    data = tf.data.Dataset.from_tensor_slices((X, np.eye(4)[Y])).batch(17)
    ours = LastLayerLaplace(structure).fit(model, data)
    theirs = LastLayerLaplace(structure).fit(model, (X[::-1], Y[::-1]))
    assert ours.prior_precision == pytest.approx(theirs.prior_precision, rel=1e-5)
    assert ours.predict(TEST) == pytest.approx(theirs.predict(TEST), abs=1e-6)


def test_a_softmax_inside_the_last_layer_is_stepped_before():
    inside, outside = classifier(head="softmax"), classifier()
    expected = LastLayerLaplace().fit(outside, (X, Y)).predict(TEST)
    assert LastLayerLaplace().fit(inside, (X, Y)).predict(TEST) == pytest.approx(expected, abs=1e-6)


def test_kronecker_factors_are_never_multiplied_out():
    """500 classes times 300 features: the matrix over all parameters would take 180 GB."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(300, activation="relu"), layers.Dense(500)])
    laplace = LastLayerLaplace("kfac").fit(model, (X, R.randint(0, 500, 300)))
    assert laplace.num_parameters == 150_500
    assert np.isfinite(laplace.log_marginal_likelihood())
    assert laplace.predict(TEST).sum(axis=1) == pytest.approx(np.ones(30), abs=1e-12)
    with pytest.raises(ValueError, match="150500 parameters does not fit in memory"):
        laplace.posterior_precision()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_gives_probabilities_that_sum_to_one(policy):
    keras.config.set_dtype_policy(policy)
    p = LastLayerLaplace().fit(classifier(head="softmax"), (X, Y)).predict(TEST)
    assert p.sum(axis=1) == pytest.approx(np.ones(30), abs=1e-12)


def test_evaluate_takes_it_and_its_training_data_are_known():
    laplace = LastLayerLaplace().fit(classifier(), (X, Y))
    labels = R.randint(0, 4, 30)
    row = evaluate(laplace, (TEST, labels))
    assert row["nll"] == pytest.approx(-np.mean(np.log(laplace.predict(TEST)[np.arange(30), labels])))
    (seen,) = find_fingerprints(laplace)
    assert (seen.owner, seen.num_samples) == ("LastLayerLaplace", 300)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_file_brings_back_the_same_numbers(structure, tmp_path):
    model = classifier()
    laplace = LastLayerLaplace(structure, num_samples=30, seed=4).fit(model, (X, Y))
    laplace.save(tmp_path / "laplace.npz")
    loaded = LastLayerLaplace.load(tmp_path / "laplace.npz", model)
    ours, theirs = laplace.predict_uncertainty(TEST), loaded.predict_uncertainty(TEST)
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert loaded.log_marginal_likelihood(0.2) == laplace.log_marginal_likelihood(0.2)
    assert (loaded.prior_precision, loaded.num_samples) == (laplace.prior_precision, 30)
    assert find_fingerprints(loaded) == find_fingerprints(laplace)
    assert [path.name for path in tmp_path.iterdir()] == ["laplace.npz"]


def test_a_file_is_refused_for_a_model_with_other_weights(tmp_path):
    path = tmp_path / "laplace.npz"
    LastLayerLaplace().fit(classifier(), (X, Y)).save(path)
    LastLayerLaplace.load(path, classifier())
    with pytest.raises(ValueError, match="fitted on a model with other weights than 'sequential"):
        LastLayerLaplace.load(path, classifier(seed=1))


def test_what_is_no_such_file_is_not_loaded(tmp_path):
    path, model = tmp_path / "laplace.npz", classifier()
    LastLayerLaplace().fit(model, (X, Y)).save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays.pop("header")))
    np.savez(path, header=np.array(json.dumps({**header, "format": 99})), **arrays)
    with pytest.raises(ValueError, match="has format 99"):
        LastLayerLaplace.load(path, model)
    np.savez(path, header=np.array(json.dumps({"kind": "other"})))
    with pytest.raises(ValueError, match="is no LastLayerLaplace file"):
        LastLayerLaplace.load(path, model)
    np.savez(path, header=np.array({"kind": "pickled"}, dtype=object))
    with pytest.raises(ValueError, match="is no LastLayerLaplace file"):
        LastLayerLaplace.load(path, model)
    path.write_bytes(b"PK\3\4 half a file")
    with pytest.raises(ValueError, match="is no LastLayerLaplace file, or is damaged"):
        LastLayerLaplace.load(path, model)


# --- refusals ---------------------------------------------------------------------------------------------------------


def never_read():
    def generate():
        raise AssertionError("the data were read")
        yield

    shapes = (tf.TensorSpec((None, 5)), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(generate, output_signature=shapes)


def test_what_does_not_fit_in_memory_is_refused_before_the_data_are_read():
    # 4 classes times (7 + 1) parameters each: 4 * 8 * 32 ** 2 bytes
    with pytest.raises(ValueError, match=r'structure="full" of 7 features and 4 logits.*Use structure="kfac"'):
        LastLayerLaplace("full", memory_limit=4 * 8 * 32**2 - 1).fit(classifier(), never_read())
    LastLayerLaplace("full", memory_limit=4 * 8 * 32**2).fit(classifier(), (X, Y))
    with pytest.raises(ValueError, match=r'structure="kfac".*Use structure="diag"'):
        LastLayerLaplace("kfac", memory_limit=1000).fit(classifier(), never_read())
    with pytest.raises(ValueError, match=r'structure="diag".*Pass a larger memory_limit'):
        LastLayerLaplace("diag", memory_limit=10).fit(classifier(), never_read())


def test_memory_that_the_system_has_not_got_is_refused():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2000), layers.Dense(1000)])
    with pytest.raises(ValueError, match=r"needs 1.19e\+05 GiB of memory"):
        LastLayerLaplace("full").fit(model, never_read())


def test_a_last_layer_that_changed_since_fit_is_refused():
    model = classifier()
    laplace = LastLayerLaplace().fit(model, (X, Y))
    model.layers[-1].bias.assign([0.0, 0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="has changed since fit"):
        laplace.predict(TEST)
    laplace.fit(model, (X, Y)).predict(TEST)


def test_a_second_fit_finds_its_prior_precision_anew():
    laplace = LastLayerLaplace().fit(classifier(), (X, Y))
    again = laplace.fit(classifier(seed=1), (X, Y)).prior_precision
    assert again == LastLayerLaplace().fit(classifier(seed=1), (X, Y)).prior_precision


def subclassed():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = layers.Dense(4, activation="softmax")

        def call(self, x):
            return self.last(x)

    model = Own()
    model(X)
    return model


def test_a_model_without_a_linear_head_is_refused():
    nonlinear = keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.LeakyReLU(), layers.Softmax()])
    with pytest.raises(ValueError, match="whose logits are a linear map of features, but"):
        LastLayerLaplace().fit(nonlinear, (X, Y))
    with pytest.raises(ValueError, match="Cannot tell whether"):
        LastLayerLaplace().fit(subclassed(), (X, Y))


def test_where_no_prior_precision_is_best_a_number_is_asked_for():
    model = classifier(use_bias=False)
    model.layers[-1].kernel.assign(np.zeros((7, 4)))
    laplace = LastLayerLaplace()
    with pytest.raises(ValueError, match="No best prior precision exists"):
        laplace.fit(model, (X, Y))
    with pytest.raises(ValueError, match="is not fitted"):
        laplace.predict(TEST)
    assert LastLayerLaplace(prior_precision=1.0).fit(model, (X, Y)).predict(TEST) == pytest.approx(
        np.full((30, 4), 0.25)
    )


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, True, "empirical", None])
def test_a_prior_precision_that_is_no_positive_number_is_refused(value):
    with pytest.raises(ValueError, match="prior_precision must be a positive number"):
        LastLayerLaplace(prior_precision=value)
    if value is not None:
        with pytest.raises(ValueError, match="prior_precision must be a positive number"):
            LastLayerLaplace("diag").fit(classifier(), (X, Y)).log_marginal_likelihood(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structure": "kron"}, r"structure must be one of \['diag', 'full', 'kfac'\]. Received: structure='kron'"),
        ({"num_samples": 1}, "num_samples must be an integer of at least 2"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"memory_limit": 1.5}, "memory_limit must be an integer of at least 1"),
    ],
)
def test_other_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LastLayerLaplace(**options)


def test_what_is_not_fitted_says_so(tmp_path):
    laplace = LastLayerLaplace()
    calls = [
        lambda: laplace.predict(X),
        lambda: laplace.predict_uncertainty(X),
        lambda: laplace.logits(X),
        lambda: laplace.log_marginal_likelihood(),
        lambda: laplace.posterior_precision(),
        lambda: laplace.num_parameters,
        lambda: laplace.save(tmp_path / "laplace.npz"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is not fitted"):
            call()
    assert laplace.fingerprints == []
