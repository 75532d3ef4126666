"""What do other packages say of the same data? One check for each metric and package that has it.

The packages are imported where they are used; none is needed to use tfprune.
"""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import sys
import warnings

# Torchvision, which some of the packages import, crashes the process once TensorFlow has been loaded.
_TOO_LATE = "tensorflow" in sys.modules and "torchvision" not in sys.modules
if not _TOO_LATE:
    with contextlib.suppress(ImportError):
        importlib.import_module("torchvision")

import numpy as np  # noqa: E402

from tfprune import metrics  # noqa: E402
from tfprune.uncertainty import calibrators  # noqa: E402
from tfprune.verification import golden  # noqa: E402

# --- the data ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Classified:
    """Logits, their softmax, labels, the predicted class' probability, and whether it is right."""

    logits: np.ndarray
    labels: np.ndarray

    @property
    def probabilities(self):
        """(samples, classes)."""
        return metrics.softmax(self.logits)

    @property
    def confidence(self):
        """(samples,)."""
        return self.probabilities.max(axis=1)

    @property
    def correct(self):
        """(samples,) of 0 and 1."""
        return (self.logits.argmax(axis=1) == self.labels).astype(np.float64)


def classifiers():
    """`{name: Classified}`: the golden two, 2 to 1000 classes, ties, saturated probabilities, a missing class."""
    found = {"golden A": golden.classifier_a(), "golden B": golden.classifier_b()}
    for seed, (num_samples, num_classes, scale) in enumerate([(300, 2, 1), (500, 3, 3), (800, 100, 2), (400, 1000, 4)]):
        found[f"{num_classes} classes"] = _draw(seed, num_samples, num_classes, scale)
    logits, labels = _draw(9, 600, 5, 1)
    found["saturated"] = 60 * logits, np.where(labels == 4, 0, labels)  # class 4 is missing
    found["tied"] = np.round(logits), labels
    return {name: Classified(*pair) for name, pair in found.items()}


def _draw(seed, num_samples, num_classes, scale):
    """Logits, and labels that half of the samples' largest noisy logits name."""
    random = np.random.default_rng(seed)
    logits = scale * random.standard_normal((num_samples, num_classes))
    return logits, (logits + 1.5 * scale * random.standard_normal(logits.shape)).argmax(axis=1)


def detections():
    """`{name: (scores of known samples, scores of strangers)}`."""
    random = np.random.default_rng(0)
    few = np.round(random.standard_normal(60)), np.round(random.standard_normal(25) + 0.5)
    huge = np.exp(8 * random.standard_normal(400)), np.exp(8 * random.standard_normal(300) + 3)
    return {"golden": golden.detector(), "golden, tied": golden.detector(tied=True), "few, tied": few, "huge": huge}


def regressions():
    """`{name: (means, standard deviations, targets)}`."""
    random = np.random.default_rng(0)
    mean, std = random.standard_normal(700), random.uniform(0.2, 3, 700)
    return {"golden": golden.regressor(), "right": (mean, std, mean + std * random.standard_normal(700))}


DATA = {"classifier": classifiers, "detector": detections, "regression": regressions}

# --- the checks -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Check:
    """One metric of ours against one function of a package.

    Args:
        ours: name of our metric, with its settings.
        package: name of the distribution.
        function: its function.
        tolerance: largest absolute difference that counts as the same.
        kind: of the data: "classifier", "detector" or "regression".
        compute: function `data -> (our number, theirs)`.
        without: names of data that the package cannot take.
        remark: what to know about it.
    """

    ours: str
    package: str
    function: str
    tolerance: float
    kind: str
    compute: callable
    without: tuple = ()
    remark: str = ""


CHECKS = []


def _check(ours, package, function, tolerance, kind="classifier", without=(), remark=""):
    def add(compute):
        CHECKS.append(Check(ours, package, function, tolerance, kind, compute, without, remark))
        return compute

    return add


def _module(name):
    return importlib.import_module(name)


def tensorflow_probability():
    """The package, also where TFMOT's import made tf.keras tf_keras: it then asks for that by a name no module has."""
    sys.modules.setdefault("tensorflow.compat.v2.keras", _module("tf_keras"))  # which it needs in any case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package's own imports
        return _module("tensorflow_probability")


def _torch(values):
    return _module("torch").as_tensor(np.asarray(values))


for _norm in ("l1", "l2", "max"):

    @_check(
        *(f"ece, {_norm}", "torchmetrics", f"multiclass_calibration_error, norm {_norm}", 1e-6),
        without=("saturated", "tied"),
        remark="edges in float32, and no bin for 1",
    )
    def _torchmetrics_ece(data, norm=_norm):
        theirs = _module("torchmetrics.functional.classification").multiclass_calibration_error
        probabilities, labels = _torch(data.probabilities), _torch(data.labels)
        found = theirs(probabilities, labels, num_classes=probabilities.shape[1], n_bins=15, norm=norm)
        return metrics.ece(data.probabilities, data.labels, norm=norm), float(found)


@_check("classwise_ece", "torchmetrics", "binary_calibration_error of each class", 1e-6, without=("saturated",))
def _torchmetrics_classwise(data):
    theirs = _module("torchmetrics.functional.classification").binary_calibration_error
    columns = enumerate(data.probabilities.T)
    found = [float(theirs(_torch(p), _torch((data.labels == k).astype(int)), n_bins=15)) for k, p in columns]
    return metrics.classwise_ece(data.probabilities, data.labels), np.mean(found)


@_check("uce", "torchmetrics", "binary_calibration_error of entropy and error", 1e-6)
def _torchmetrics_uce(data):
    theirs = _module("torchmetrics.functional.classification").binary_calibration_error
    entropy = (metrics.entropy(data.probabilities) / np.log(data.probabilities.shape[1])).clip(0, 1 - 1e-9)
    found = theirs(_torch(entropy), _torch(1 - data.correct.astype(int)), n_bins=15)
    return metrics.uce(data.probabilities, data.labels), float(found)


for _ours, _name in (("ece", "ECE"), ("ece, max", "MCE"), ("average_calibration_error", "ACE")):

    @_check(_ours, "netcal", f"netcal.metrics.{_name}(15)", 1e-7, without=("2 classes", "saturated"),
            remark="two columns it takes for one-hot labels")  # fmt: skip
    def _netcal(data, name=_name):
        theirs = getattr(_module("netcal.metrics"), name)(15)
        ours = {"ECE": metrics.ece, "MCE": _mce, "ACE": metrics.average_calibration_error}[name]
        return ours(data.probabilities, data.labels), theirs.measure(data.probabilities, data.labels)


def _mce(probabilities, labels):
    return metrics.ece(probabilities, labels, norm="max")


@_check("ece", "tensorflow-probability", "tfp.stats.expected_calibration_error", 2e-6)
def _tfp_ece(data):
    theirs = tensorflow_probability().stats.expected_calibration_error
    predicted, logits = data.logits.argmax(axis=1).astype("int32"), data.logits.astype("float32")
    found = theirs(15, logits=logits, labels_true=data.labels.astype("int32"), labels_predicted=predicted)
    return metrics.ece(data.probabilities, data.labels), float(found)


@_check("ece, closed right", "uncertainty-calibration", "calibration.get_ece", 1e-9)
def _uc_ece(data):
    found = _module("calibration").get_ece(data.probabilities, data.labels, num_bins=15)
    return metrics.ece(data.probabilities, data.labels, closed="right"), found


@_check("equal_mass_ece", "uncertainty-calibration", "calibration.get_ece_em", 1e-9, without=("tied", "saturated"),
        remark="the order of ties is the package's own")  # fmt: skip
def _uc_equal_mass(data):
    found = _module("calibration").get_ece_em(data.probabilities, data.labels, num_bins=15)
    return metrics.equal_mass_ece(data.probabilities, data.labels), found


@_check("debiased_calibration_error", "uncertainty-calibration", "get_top_calibration_error(p=2, debias=True)", 1e-9,
        without=("tied", "saturated"), remark="the order of ties is the package's own")  # fmt: skip
def _uc_debiased(data):
    theirs = _module("calibration").get_top_calibration_error
    return metrics.debiased_calibration_error(data.probabilities, data.labels), theirs(
        data.probabilities, data.labels, p=2, debias=True
    )


@_check("smooth_ece", "relplot", "relplot.smECE", 1e-5)
def _relplot(data):
    found = _module("relplot").smECE(data.confidence, data.correct)
    return metrics.smooth_ece(data.probabilities, data.labels), float(found)


@_check("smooth_ece, sigma 0.05", "relplot", "relplot.smECE_sigma", 1e-5)
def _relplot_sigma(data):
    found = _module("relplot").smECE_sigma(data.confidence, data.correct, sigma=0.05)
    return metrics.smooth_ece(data.probabilities, data.labels, sigma=0.05), float(found)


@_check("nll", "scikit-learn", "sklearn.metrics.log_loss", 1e-9, without=("saturated",), remark="it clips at 1e-16")
def _sklearn_nll(data):
    theirs = _module("sklearn.metrics").log_loss
    return metrics.nll(data.logits, data.labels), theirs(
        data.labels, data.probabilities, labels=range(data.logits.shape[1])
    )


@_check("brier", "tensorflow-probability", "tfp.stats.brier_score + 1", 1e-6)
def _tfp_brier(data):
    found = tensorflow_probability().stats.brier_score(data.labels.astype("int32"), data.logits)
    return metrics.brier(data.probabilities, data.labels), float(np.mean(found)) + 1


@_check("aurc", "pytorch-ood", "1 - metrics.functional.aurra", 1e-6, without=("tied", "saturated"),
        remark="breaks ties by the order of samples; computes in float32")  # fmt: skip
def _ood_aurc(data):
    theirs = _module("pytorch_ood.metrics.functional").aurra
    return metrics.aurc(data.confidence, data.correct), 1 - float(theirs(_torch(data.confidence), _torch(data.correct)))


@_check("temperature", "scipy", "scipy.optimize.minimize_scalar(bounded)", 1e-6, without=("saturated", "tied"),
        remark="where a finite temperature is best")  # fmt: skip
def _scipy_temperature(data):
    def loss(inverse):
        return metrics.nll(inverse * data.logits, data.labels)

    found = _module("scipy.optimize").minimize_scalar(
        loss, bounds=(1e-3, 20), method="bounded", options={"xatol": 1e-12}
    )
    layer = calibrators.TemperatureScaling().fit_logits(data.logits, data.labels)
    return 1 / float(layer.temperature), found.x


def _sklearn_detection(name):
    sk = _module("sklearn.metrics")

    def area(is_positive, scores):
        precision, recall, _ = sk.precision_recall_curve(is_positive, scores)
        return sk.auc(recall, precision)

    def rates(is_positive, scores):
        false, true, _ = sk.roc_curve(is_positive, scores, drop_intermediate=False)
        return false[np.argmax(true >= 0.95)]

    def accuracy(is_ood, scores):
        false, true, _ = sk.roc_curve(is_ood, scores, drop_intermediate=False)
        return 1 - np.min(0.5 * (false + 1 - true))

    return {
        "auroc": sk.roc_auc_score,
        "aupr_out": area,
        "aupr_in": lambda is_ood, scores: area(1 - is_ood, -scores),
        "average_precision_out": sk.average_precision_score,
        "average_precision_in": lambda is_ood, scores: sk.average_precision_score(1 - is_ood, -scores),
        "fpr95": rates,
        "fpr95, positive id": lambda is_ood, scores: rates(1 - is_ood, -scores),
        "detection_accuracy": accuracy,
    }[name]


def our_detection(name, known, strange):
    """Our detection metric by its name and setting, such as "fpr95, positive id"."""
    function, _, positive = name.partition(", positive ")
    return getattr(metrics, function)(known, strange, **({"positive": positive} if positive else {}))


for _name, _function in {
    "auroc": "roc_auc_score",
    "aupr_out": "precision_recall_curve, auc",
    "aupr_in": "precision_recall_curve, auc",
    "average_precision_out": "average_precision_score",
    "average_precision_in": "average_precision_score",
    "fpr95": "roc_curve(drop_intermediate=False)",
    "fpr95, positive id": "roc_curve(drop_intermediate=False)",
    "detection_accuracy": "roc_curve(drop_intermediate=False)",
}.items():

    @_check(_name, "scikit-learn", f"sklearn.metrics.{_function}", 1e-12, "detector")
    def _sklearn(data, name=_name):
        is_ood = np.repeat([0, 1], [len(part) for part in data])
        return our_detection(name, *data), _sklearn_detection(name)(is_ood, np.concatenate(data))


for _name, _key in (("auroc", "AUROC"), ("aupr_out", "AUPR-OUT"), ("aupr_in", "AUPR-IN"), ("fpr95", "FPR95TPR")):

    @_check(_name, "pytorch-ood", f"OODMetrics, {_key}", 1e-6, "detector", without=("huge",), remark="float32")
    def _pytorch_ood(data, name=_name, key=_key):
        theirs = _module("pytorch_ood.metrics").OODMetrics()
        is_ood = np.repeat([1, -1], [len(part) for part in data])  # its strangers have negative labels
        theirs.update(_torch(np.concatenate(data).astype("float32")), _torch(is_ood))
        single = [part.astype("float32").astype("float64") for part in data]
        return our_detection(name, *single), float(theirs.compute()[key])


_REGRESSION = {
    "gaussian_nll": ("nll_gaussian", {}),
    "gaussian_crps": ("crps_gaussian", {}),
    "interval coverage error": ("mean_absolute_calibration_error", {"prop_type": "interval"}),
    "quantile coverage error": ("mean_absolute_calibration_error", {"prop_type": "quantile"}),
    "interval coverage error, l2": ("root_mean_squared_calibration_error", {"prop_type": "interval"}),
    "interval coverage error, area": ("miscalibration_area", {"prop_type": "interval"}),
}


def our_regression(name, given):
    """Our regression metric by its name and setting, such as "interval coverage error, l2"."""
    if name in ("gaussian_nll", "gaussian_crps", "std_scale"):
        return getattr(metrics, name)(*given)
    kind, _, norm = name.replace(" coverage error", "").partition(", ")
    return metrics.coverage_calibration_error(*given, kind=kind, norm=norm or "l1")


for _name, (_function, _settings) in _REGRESSION.items():

    @_check(
        *(_name, "uncertainty-toolbox", _function, 1e-9, "regression"),
        # Its quantiles are mirrored, which shows where errors are not symmetric.
        without=("right",) if "quantile" in _name else (),
    )
    def _toolbox(data, name=_name, function=_function, settings=_settings):
        return our_regression(name, data), getattr(_module("uncertainty_toolbox"), function)(*data, **settings)


@_check("sharpness", "uncertainty-toolbox", "sharpness", 1e-12, "regression")
def _toolbox_sharpness(data):
    return metrics.sharpness(data[1]), _module("uncertainty_toolbox").sharpness(data[1])


for _ours, _name in (("ence, width", "ENCE"), ("regression_uce, width", "UCE")):

    @_check(_ours, "netcal", f"netcal.metrics.regression.{_name}(15)", 1e-9, "regression")
    def _netcal_regression(data, ours=_ours, name=_name):
        theirs = getattr(_module("netcal.metrics.regression"), name)(15)
        function = getattr(metrics, ours.partition(",")[0])
        return function(*data, binning="width"), float(np.ravel(theirs.measure(data[:2], data[2]))[0])


@_check("picp", "netcal", "netcal.metrics.regression.PICP(15), q=0.9", 1e-12, "regression")
def _netcal_picp(data):
    found = _module("netcal.metrics.regression").PICP(15).measure(data[:2], data[2], q=0.9)
    return metrics.picp(*data), float(np.ravel(found[0] if isinstance(found, tuple) else found)[0])


def version(package):
    """Version of a package, None where it is not installed or cannot be imported any more."""
    if _TOO_LATE and package in ("torchmetrics", "netcal", "pytorch-ood"):
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
