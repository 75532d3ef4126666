"""Does a killed fit go on from its backup, in a fresh process too, and end with the same ticket, bit by bit?"""

import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import tfprune
from tfprune.callbacks import Compaction, LotteryTicket
from tfprune.pruning import checkpoint
from tfprune.structure.replay import value_of

EPOCHS = 9
CASES = {  # name -> (settings, the epoch in which the fit is killed, others of the callbacks)
    "fine-tuning": ({"rewind": None, "rounds": 2}, 4, ()),
    "random": ({"rewind": "random", "criterion": "random", "seed": None}, 7, (Compaction,)),
}


def data(seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(48, 4)).astype("float32")
    return x, (x[:, 0] * x[:, 1] > 0).astype("int32")


def masked_model(seed=7, dropout=0.2):
    """Layers with statistics and noise, and a learning rate that falls: all that has a state."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.Dropout(dropout, seed=1, name="dropout"),
            layers.Dense(6, activation="relu", name="second"),
            layers.Dense(2, name="out"),
        ]
    )
    decay = keras.optimizers.schedules.ExponentialDecay(0.02, 3, 0.95)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # without tracing, which takes most of the time here
    model.compile(keras.optimizers.Adam(decay), loss, metrics=["accuracy"], run_eagerly=True)
    return tfprune.wrap(model)


def lottery(backup, **settings):
    return LotteryTicket(0.6, **{"seed": 3, "patience": 2, **settings}, backup=backup)


def fit(masked, ticket, *others, epochs=EPOCHS):
    return masked.fit(
        *data(0), validation_data=data(1), batch_size=16, epochs=epochs, shuffle=False, verbose=0,
        callbacks=[*others, ticket],
    ).history  # fmt: skip


class Kill(keras.callbacks.Callback):
    """Ends a fit in the middle of an epoch, as a power cut does: nobody is told."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.now = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise InterruptedError("power cut")


def killed(backup, epoch, *others, **settings):
    with pytest.raises(InterruptedError):
        fit(masked_model(), lottery(backup, **settings), *others, Kill(epoch))


def told(ticket):
    """All that a fit found, as values that can be compared."""
    rows = [
        {name: value for name, value in row.items() if name != "masks"} | {"masks": _listed(row["masks"])}
        for row in ticket.history
    ]
    return rows, ticket.finished, ticket._drawn, [value_of(weight).tolist() for weight in ticket.model.weights]


def _listed(masks):
    return {name: mask.tolist() for name, mask in masks.items()}


@pytest.mark.parametrize("case", CASES)
def test_killed_fit_ends_with_the_same_ticket(case, tmp_path):
    settings, epoch, others = CASES[case]
    others = [other() for other in others]
    if settings.get("seed", 3) is None:
        settings = {**settings, "seed": 11}
    whole = lottery(None, **settings)
    logs = fit(masked_model(), whole, *others)
    assert len(logs["loss"]) > epoch, "the fit is killed before its end"
    killed(tmp_path, epoch, *others, **settings)
    resumed = lottery(tmp_path, **settings)
    masked = masked_model(seed=99)  # other weights: they come from the backup
    resumed_logs = fit(masked, resumed, *others)
    assert told(resumed) == told(whole)
    assert resumed_logs == logs
    assert masked.history.epoch == list(range(len(logs["loss"])))
    ours, theirs = resumed.ticket(), whole.ticket()
    assert ours.id == theirs.id
    assert ours.hashes == theirs.hashes
    assert ours.started == theirs.started
    assert ours.criterion == theirs.criterion
    for name, scores in theirs.scores.items():
        np.testing.assert_array_equal(ours.scores[name], scores)
    assert not list(tmp_path.iterdir()), "a fit that ended leaves no backup"


def test_second_fit_starts_at_its_first_epoch(tmp_path):
    killed(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["training.npz"]
    masked = masked_model()
    fit(masked, lottery(tmp_path), epochs=4)
    assert len(fit(masked, lottery(tmp_path), epochs=2)["loss"]) == 2


def test_backup_of_another_fit_is_refused(tmp_path):
    killed(tmp_path, 4)
    for other in ({"patience": 1}, {"rounds": 2}, {"criterion": "l2"}):
        ((name, value),) = other.items()
        with pytest.raises(ValueError, match=rf"is of another training: its {name} is .*, here it is '?{value}"):
            fit(masked_model(), lottery(tmp_path, **other))
    model = tfprune.wrap(keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(2)]))
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="its shapes is"):
        fit(model, lottery(tmp_path))
    backup = checkpoint.Backup(tmp_path, {})
    np.savez(backup.path, about=np.frombuffer(b'{"kind": "something"}', np.uint8))
    with pytest.raises(ValueError, match="no backup that this version of tfprune"):
        fit(masked_model(), lottery(tmp_path))


def test_damaged_backup_is_told_and_the_fit_starts_anew(tmp_path):
    whole = lottery(None)
    fit(masked_model(), whole, epochs=4)
    killed(tmp_path, 2)
    path = tmp_path / "training.npz"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    again = lottery(tmp_path)
    with pytest.warns(UserWarning, match=r"is damaged .* starts at its beginning"):
        fit(masked_model(), again, epochs=4)
    assert told(again) == told(whole)


def test_no_damage_gives_other_values(tmp_path):
    backup = checkpoint.Backup(tmp_path, {"ratio": 0.5})
    backup.save({"epoch": 1}, {"weights": np.arange(400)})
    content, noticed = backup.path.read_bytes(), 0
    for place in range(60, len(content), 97):
        backup.path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with warnings.catch_warnings(record=True) as told_of:
            warnings.simplefilter("always")
            found = backup.load()
        noticed += found is None
        assert found is None or (found[0] == {"epoch": 1} and np.array_equal(found[1]["weights"], np.arange(400)))
        assert (found is None) == any("is damaged" in str(one.message) for one in told_of)
    assert noticed > 20, "all but time stamps and the like"


def test_full_disk_leaves_the_last_backup(tmp_path, monkeypatch):
    backup = checkpoint.Backup(tmp_path, {"ratio": 0.5})
    backup.save({"epoch": 1}, {"weights": np.arange(3)})

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        backup.save({"epoch": 2}, {"weights": np.arange(3)})
    assert backup.load()[0] == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["training.npz"]


def test_backup_and_a_model_that_changes_between_rounds_do_not_go_together(tmp_path):
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.Dense(2)])
    plain.compile("adam", "mse")
    with pytest.raises(ValueError, match="one fit over all rounds"):
        tfprune.find_ticket(plain, data(0), backup=tmp_path, shrink_between_rounds=True, epochs=2)


FRESH = """if True:
    import sys
    sys.path.insert(0, sys.argv[1])
    import numpy as np
    import test_backup as t
    import keras, tfprune
    ticket = t.lottery(sys.argv[2], rewind=2, rounds=2)
    t.fit(t.masked_model(seed=50), ticket)
    ticket.ticket().save(sys.argv[3], weights=True)
    masked = keras.models.load_model(sys.argv[4])
    masked.fit(*t.data(0), batch_size=16, epochs=2, shuffle=False, verbose=0)
    np.savez(sys.argv[5], *[t.value_of(weight) for weight in masked.weights])
"""


def test_fresh_process_takes_up_a_killed_fit_and_a_saved_masked_model(tmp_path):
    whole = lottery(None, rewind=2, rounds=2)
    fit(masked_model(), whole)
    killed(tmp_path / "backup", 5, rewind=2, rounds=2)
    masked = masked_model(dropout=0.0)  # Keras does not save the state of dropout's generator
    tfprune.set_masks(masked, tfprune.compute_masks(masked, 0.5))
    masked.fit(*data(0), batch_size=16, epochs=1, shuffle=False, verbose=0)
    masked.save(tmp_path / "masked.keras")
    files = [tmp_path / name for name in ("backup", "found.ticket", "masked.keras", "weights.npz")]
    subprocess.run([sys.executable, "-c", FRESH, Path(__file__).parent, *files], check=True)
    found, expected = tfprune.Ticket.load(tmp_path / "found.ticket"), whole.ticket()
    assert found.id == expected.id
    assert found.hashes == expected.hashes
    assert found.history[1]["best"] == expected.history[1]["best"]
    masked.fit(*data(0), batch_size=16, epochs=2, shuffle=False, verbose=0)
    with np.load(tmp_path / "weights.npz") as values:
        for name, weight in zip(values.files, masked.weights, strict=True):
            np.testing.assert_allclose(values[name], value_of(weight), atol=1e-6, err_msg=weight.path)
    counts = {name: int(mask.sum()) for name, mask in tfprune.get_masks(masked).items()}
    assert counts == {"hidden": 4, "second": 3}
