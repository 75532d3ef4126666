"""Which names may be typed where? Known without TensorFlow, so that completion and complaints come at once."""

# What knows these loads TensorFlow; a test holds them to what is there.
DETECTORS = (
    *("msp", "max_logit", "energy", "entropy", "gen", "odin", "mahalanobis", "relative_mahalanobis", "knn", "vim"),
    *("react", "dice", "ash", "scale", "gradnorm", "kl_matching", "she", "nnguide", "fdbd"),
)
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "motion_blur"),
    *("brightness", "contrast", "fog", "pixelate", "jpeg_compression"),
)
CRITERIA = ("l1", "l2", "linf", "geometric_median", "lamp", "batchnorm_scale", "synflow", "random")
DATA_CRITERIA = ("taylor", "gradient", "fisher", "hessian", "snip", "grasp", "activation_mean", "apoz")
# tfprune.study.pool and pieces know these; parsers are built without them.
BACKENDS = ("loky", "dask", "ray")
TRAINERS = ("auto", "fit", "compiled", "batched")
OPTIMIZERS = (
    *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "muon", "nadam", "rmsprop", "sgd"),
)


def _datasets():
    from tfprune.datasets import DATASETS

    return tuple(DATASETS)


def _models():
    from tfprune.models import MODELS

    return tuple(MODELS)


def _studies():
    from tfprune.study.grid import STUDIES

    return tuple(STUDIES)


def _strategies():
    from tfprune.pruning.strategies import STRATEGIES

    return tuple(STRATEGIES)


# what a flag's value is -> function that returns the names it may have
KNOWN = {
    "datasets": _datasets,
    "models": _models,
    "studies": _studies,
    "strategies": _strategies,
    "criteria": lambda: (*CRITERIA, *DATA_CRITERIA),
    "detectors": lambda: (*DETECTORS, "all"),
    "corruptions": lambda: (*CORRUPTIONS, "all"),
    "optimizers": lambda: OPTIMIZERS,
    "scopes": lambda: ("layer", "global"),
    "layers": lambda: ("all", "dense"),
}


def check(kind, values):
    """Refuses an unknown name before anything heavy is loaded for it.

    Args:
        kind: A key of `KNOWN`.
        values: The names, or None.

    Raises:
        ValueError: A name that is not known.
    """
    for value in values or ():
        if value not in KNOWN[kind]():
            raise ValueError(
                f"Unknown name among the {kind}. Received: {value!r}. Expected one of {', '.join(KNOWN[kind]())}."
            )
