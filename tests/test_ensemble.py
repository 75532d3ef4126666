"""Are members averaged as probabilities, does their disagreement count, and does a folder bring them back?"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfprune
from tfprune.evaluation import evaluate
from tfprune.uncertainty.ensemble import Ensemble
from tfprune.uncertainty.leak import Fingerprint, find_fingerprints
from tfprune.uncertainty.mc_dropout import MCDropout

R = np.random.RandomState(0)
X, Y = R.randn(40, 4).astype("float32"), R.randint(0, 3, 40)


def classifier(seed=0, units=8, head="softmax", num_classes=3, shape=(4,)):
    keras.utils.set_random_seed(seed)
    hidden = layers.Dense(units, activation="relu", name="hidden")
    return keras.Sequential([keras.Input(shape), hidden, layers.Dense(num_classes, activation=head, name="head")])


class Says:
    """Gives the same rows whatever it is asked."""

    from_logits = False

    def __init__(self, *rows):
        self.rows = np.array(rows)

    def predict(self, x):
        return self.rows[: len(x)]


# --- right numbers ----------------------------------------------------------------------------------------------------


def test_probabilities_are_averaged_and_their_disagreement_measured():
    known = Ensemble([Says([0.8, 0.2], [0.5, 0.5]), Says([0.4, 0.6], [0.5, 0.5])]).predict_uncertainty(X[:2])
    assert known["probabilities"] == pytest.approx(np.array([[0.6, 0.4], [0.5, 0.5]]))
    assert known["entropy"] == pytest.approx([0.6730116670, 0.6931471806])
    # 0.6730116670 - (0.5004024235 + 0.6730116670) / 2
    assert known["mutual_information"] == pytest.approx([0.0863046218, 0.0], abs=1e-9)


def test_weights_are_shares():
    known = Ensemble([Says([0.8, 0.2]), Says([0.4, 0.6])], weights=[3, 1]).predict_uncertainty(X[:1])
    assert known["probabilities"] == pytest.approx(np.array([[0.7, 0.3]]))
    # entropy of 0.7 less 3/4 of that of 0.8 and 1/4 of that of 0.6
    assert known["mutual_information"] == pytest.approx([0.6108643021 - 0.75 * 0.5004024235 - 0.25 * 0.6730116670])
    alone = Ensemble([Says([0.8, 0.2]), Says([0.4, 0.6])], weights=[0, 2]).predict_uncertainty(X[:1])
    assert alone["probabilities"] == pytest.approx(np.array([[0.4, 0.6]]))
    assert alone["mutual_information"] == pytest.approx([0.0], abs=1e-12)


def test_logits_are_never_averaged():
    surer = keras.Sequential([keras.Input((1,)), layers.Dense(1, kernel_initializer=keras.initializers.Constant(6.0))])
    other = keras.Sequential([keras.Input((1,)), layers.Dense(1, kernel_initializer=keras.initializers.Constant(-2.0))])
    mean = Ensemble([surer, other]).predict(np.ones((1, 1)))
    # (sigmoid(6) + sigmoid(-2)) / 2; the sigmoid of the mean logit would be 0.880797
    assert mean == pytest.approx(np.array([[1 - 0.5583651, 0.5583651]]), abs=1e-6)


def test_members_may_end_in_logits_or_probabilities():
    softmax, logits = classifier(head="softmax"), classifier(head=None)
    known = Ensemble([softmax, logits]).predict_uncertainty(X)
    assert known["probabilities"] == pytest.approx(softmax.predict(X, verbose=0), abs=1e-6)
    assert known["mutual_information"] == pytest.approx(np.zeros(40), abs=1e-7)


def test_a_sigmoid_column_is_two_classes():
    column, softmax = classifier(head="sigmoid", num_classes=1), classifier(1, num_classes=2)
    p = column.predict(X, verbose=0)
    expected = (np.concatenate([1 - p, p], axis=1) + softmax.predict(X, verbose=0)) / 2
    assert Ensemble([column, softmax]).predict(X) == pytest.approx(expected, abs=1e-6)


def test_member_probabilities_are_those_of_each_member():
    members = [classifier(seed) for seed in range(3)]
    each = Ensemble(members).member_probabilities(X)
    assert each == pytest.approx(np.stack([member.predict(X, verbose=0) for member in members]), abs=1e-6)


def test_mutual_information_grows_with_the_disagreement_of_seeds():
    few, same = Ensemble([classifier(seed) for seed in range(4)]), Ensemble([classifier(1)] * 4)
    assert few.predict_uncertainty(X)["mutual_information"].min() > 0
    assert same.predict_uncertainty(X)["mutual_information"] == pytest.approx(np.zeros(40), abs=1e-9)


# --- members ----------------------------------------------------------------------------------------------------------


def pruned_pair():
    masked = tfprune.wrap(classifier(5, units=10))
    tfprune.set_masks(masked, {"hidden": np.arange(10) % 2 == 0})
    return masked, tfprune.shrink(masked)


def test_tickets_of_different_sizes_and_masked_models_are_members():
    masked, ticket = pruned_pair()
    dense = classifier(1)
    assert ticket.count_params() < masked.count_params()
    by_ticket = Ensemble([dense, ticket]).predict(X)
    assert by_ticket == pytest.approx(Ensemble([dense, masked]).predict(X), abs=1e-6)


def test_predictives_are_members():
    inner, mc = Ensemble([classifier(0), classifier(1)]), MCDropout(dropped())
    expected = (inner.predict(X) + mc.predict(X) + classifier(2).predict(X, verbose=0)) / 3
    assert Ensemble([inner, mc, classifier(2)]).predict(X) == pytest.approx(expected, abs=1e-6)


def dropped():
    return keras.Sequential([keras.Input((4,)), layers.Dropout(0.5), layers.Dense(3)])


def test_later_training_of_a_member_counts():
    member = classifier()
    ensemble = Ensemble([member])
    ensemble.predict(X)
    for weight in member.layers[-1].weights:  # its softmax is inside: a model of the logits would hold copies of these
        weight.assign(np.zeros(weight.shape))
    assert ensemble.predict(X) == pytest.approx(np.full((40, 3), 1 / 3))


def test_members_whose_last_layer_says_nothing_need_from_logits():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = classifier(head=None)

        def call(self, x):
            return self.inner(x)

    own = Own()
    own(X)
    with pytest.raises(ValueError, match="Cannot tell whether"):
        Ensemble([own])
    expected = Ensemble([classifier(head=None)]).predict(X)
    assert Ensemble([own], from_logits=True).predict(X) == pytest.approx(expected, abs=1e-6)


def test_several_inputs_are_handed_to_every_member():
    def two_inputs(seed):
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
        return keras.Model([a, b], layers.Dense(3)(layers.Dropout(0.5)(layers.Concatenate()([a, b]))))

    x = [R.randn(9, 3), R.randn(9, 2)]
    ensemble = Ensemble([MCDropout(two_inputs(0)), two_inputs(1)])
    assert ensemble.predict(x).shape == (9, 3)
    assert evaluate(ensemble, (x, Y[:9]))["num_samples"] == 9


def test_fingerprints_of_members_are_found():
    member = Says([0.5, 0.5])
    member.fingerprints = [Fingerprint("temperature").add(X)]
    assert find_fingerprints(Ensemble([member, Says([0.5, 0.5])])) == member.fingerprints


# --- as a predictive --------------------------------------------------------------------------------------------------


def test_evaluate_takes_it():
    ensemble = Ensemble([classifier(0), classifier(1)])
    p = ensemble.predict(X)
    assert p.dtype == np.float64
    assert p.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-12)
    row = evaluate(ensemble, tf.data.Dataset.from_tensor_slices((X, Y)))
    assert row["nll"] == pytest.approx(-np.mean(np.log(p[np.arange(40), Y])))
    assert row["accuracy"] == np.mean(p.argmax(axis=1) == Y)


@pytest.mark.parametrize("size", [1, 7, 300])
def test_no_number_depends_on_the_batch(size):
    ensemble, x = Ensemble([classifier(0), classifier(1, head=None)]), R.randn(300, 4).astype("float32")
    whole = ensemble.predict_uncertainty(x)
    parts = [ensemble.predict_uncertainty(x[start : start + size]) for start in range(0, 300, size)][:20]
    for key, values in whole.items():
        got = np.concatenate([part[key] for part in parts])
        assert got == pytest.approx(values[: len(got)], abs=1e-6)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_brings_back_the_same_numbers(tmp_path):
    ensemble = Ensemble([classifier(0), classifier(1, head=None), pruned_pair()[0]], weights=[0.1, 0.2, 0.3])
    ensemble.save(tmp_path / "new" / "ensemble")
    loaded = Ensemble.load(tmp_path / "new" / "ensemble")
    assert np.array_equal(loaded.predict(X), ensemble.predict(X))
    assert loaded.weights == [0.1, 0.2, 0.3]
    assert type(loaded.members[2].layers[-1]).__name__ == "ChannelMask"


def test_saving_again_replaces_the_older_ensemble(tmp_path):
    Ensemble([classifier(seed) for seed in range(3)]).save(tmp_path)
    newer = Ensemble([classifier(7)])
    newer.save(tmp_path)
    assert np.array_equal(Ensemble.load(tmp_path).predict(X), newer.predict(X))
    assert len(list(tmp_path.iterdir())) == 2  # the header and one member


def test_a_save_that_breaks_off_leaves_the_older_ensemble(tmp_path, monkeypatch):
    older = Ensemble([classifier(0), classifier(1)])
    older.save(tmp_path)
    files = sorted(tmp_path.iterdir())
    second = classifier(3)
    monkeypatch.setattr(second, "save", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        Ensemble([classifier(2), second]).save(tmp_path)
    assert sorted(tmp_path.iterdir()) == files
    assert np.array_equal(Ensemble.load(tmp_path).predict(X), older.predict(X))


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="holds no ensemble"):
        Ensemble([classifier()]).save(tmp_path)
    with pytest.raises(FileExistsError, match="holds no ensemble"):
        Ensemble([classifier()]).save(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_predictives_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="Received: member 1, a MCDropout"):
        Ensemble([classifier(), MCDropout(dropped())]).save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def changed(header, **entries):
    header.write_text(json.dumps({**json.loads(header.read_text()), **entries}))


def test_what_is_not_a_whole_ensemble_is_not_loaded(tmp_path):
    with pytest.raises(ValueError, match="holds no ensemble"):
        Ensemble.load(tmp_path)
    Ensemble([classifier()]).save(tmp_path)
    header = tmp_path / "ensemble.json"
    member = tmp_path / json.loads(header.read_text())["members"][0]["file"]
    whole = member.read_bytes()
    member.write_bytes(whole[:-1] + b"?")
    with pytest.raises(ValueError, match="is not the file that was saved"):
        Ensemble.load(tmp_path)
    member.write_bytes(whole)
    changed(header, format=99)
    with pytest.raises(ValueError, match="has format 99"):
        Ensemble.load(tmp_path)
    changed(header, kind="something else")
    with pytest.raises(ValueError, match="is not the header of a tfprune ensemble"):
        Ensemble.load(tmp_path)
    header.write_text(header.read_text()[:20])
    with pytest.raises(ValueError, match="is damaged"):
        Ensemble.load(tmp_path)


def test_a_header_cannot_name_files_outside_its_folder(tmp_path):
    Ensemble([classifier()]).save(tmp_path / "a")
    Ensemble([classifier()]).save(tmp_path / "b")
    entry = json.loads((tmp_path / "a" / "ensemble.json").read_text())["members"][0]
    changed(tmp_path / "b" / "ensemble.json", members=[{**entry, "file": f"../a/{entry['file']}"}])
    with pytest.raises(ValueError, match="is missing"):
        Ensemble.load(tmp_path / "b")


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [[], None, classifier])
def test_no_list_of_members_is_refused(members):
    with pytest.raises(ValueError, match="needs a list of at least one member"):
        Ensemble(members)


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [1, np.nan]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be 2 numbers of at least 0"):
        Ensemble([classifier(), classifier()], weights)


def test_members_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"same classes. Received: 3, and 5 of member 1 \('sequential"):
        Ensemble([classifier(), classifier(num_classes=5)])
    with pytest.raises(ValueError, match="All members must take the same inputs"):
        Ensemble([classifier(), classifier(shape=(6,))])
    with pytest.raises(ValueError, match=r"same classes. Received: 3, and 2 of member 1 \('Says"):
        Ensemble([classifier(), Says([0.5, 0.5])]).predict(X[:1])


def test_what_does_not_predict_is_refused():
    with pytest.raises(TypeError, match="must be a Keras model or have"):
        Ensemble([classifier(), "ticket.keras"])


def test_rows_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="rows sum to 1"):
        Ensemble([Says([0.5, 0.9])]).predict(X[:1])
    member = classifier(head=None)
    member.layers[-1].bias.assign([np.nan, 0, 0])
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        Ensemble([member]).predict(X)
