"""How is one model compiled as another one was, whatever the user put into it?

Keras itself goes through text (`get_compile_config`), which holds no lambda, no partial, no class that was not
registered, and not what a user's own model class keeps beside its layers. Here the objects themselves are used again;
only what has a state of its own, the optimizer and the metrics, is made anew.
"""

import contextlib
import functools
import warnings

import keras


def compile_like(model, reference):
    """Compiles `model` with the settings of `reference`, with an optimizer of its own that starts afresh.

    Where both are of one user's own class, the new model also gets what the other keeps beside its layers: a teacher,
    the weight of a loss. An optimizer that cannot be made again leaves the model without; a warning says so.
    """
    if getattr(reference, "compiled", False):
        try:
            _compile(model, reference)
        except Exception as error:  # of a user's own classes; the model itself, and the training in it, are sound
            warnings.warn(
                f"'{model.name}' is not compiled: the settings of '{reference.name}' cannot be used again. "
                f"{type(error).__name__}: {error} Call its compile yourself before you train or evaluate it.",
                stacklevel=3,
            )
    _carry_attributes(model, reference)
    if model.compiled and model.optimizer is not None and model.built and not model.optimizer.built:
        carry_exclusions(model, reference)
        model.optimizer.build(model.trainable_variables)


def _compile(model, reference):
    if model.dtype_policy.name != reference.dtype_policy.name:
        model.dtype_policy = reference.dtype_policy  # Keras scales the loss of a model whose own policy is float16
    has_own_way = type(reference).compile_from_config is not keras.Model.compile_from_config
    if has_own_way or not hasattr(reference, "_compile_config"):
        model.compile_from_config(reference.get_compile_config())
        return
    settings = dict(reference._compile_config.config)
    scaled = isinstance(reference.optimizer, keras.optimizers.LossScaleOptimizer)
    settings["optimizer"] = optimizer_like(settings["optimizer"])
    for name in ("metrics", "weighted_metrics"):
        settings[name] = _metrics_like(settings[name])
    # not model.compile: a user's own may ask for more
    keras.Model.compile(model, **settings, auto_scale_loss=scaled)


def optimizer_like(optimizer):
    """An optimizer of the same class and settings, without a state; a learning-rate schedule is used again."""
    if optimizer is None:
        return None
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scaling = {name: getattr(optimizer, name) for name in ("initial_scale", "dynamic_growth_steps", "name")}
        return type(optimizer)(optimizer_like(optimizer.inner_optimizer), **scaling)
    return type(optimizer).from_config(optimizer_config(optimizer))


def optimizer_config(optimizer):
    """What `get_config()` says, with a learning-rate schedule as itself: a user's own need not have a config."""
    rate = getattr(optimizer, "_learning_rate", None)
    if not callable(rate) or isinstance(rate, keras.Variable):
        return optimizer.get_config()
    object.__setattr__(optimizer, "_learning_rate", 0.001)
    try:
        return {**optimizer.get_config(), "learning_rate": rate}
    finally:
        object.__setattr__(optimizer, "_learning_rate", rate)


def _metrics_like(metrics):
    """The metrics again, in the structure in which they were given, without those that cannot be made."""
    if isinstance(metrics, dict):
        return {name: _metrics_like(part) for name, part in metrics.items()}
    if isinstance(metrics, list | tuple):
        made = [(metric, _metrics_like(metric)) for metric in metrics]
        return [new for old, new in made if new is not None or old is None]
    return _metric_like(metrics)


def _metric_like(metric):
    """A metric of the same kind without a state; names and functions stand for themselves."""
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    if type(metric) is keras.metrics.MeanMetricWrapper:
        return type(metric)(metric._fn, name=metric.name, dtype=metric.dtype, **metric._fn_kwargs)
    with contextlib.suppress(Exception), keras.saving.custom_object_scope({type(metric).__name__: type(metric)}):
        return type(metric).from_config(metric.get_config())
    warnings.warn(
        f"The metric '{metric.name}' is left out of the new model: {type(metric).__name__} cannot be made again from "
        "its get_config(). Give it one that returns what its __init__ takes.",
        stacklevel=6,
    )
    return None


def carry_exclusions(model, reference):
    """Tells an optimizer that is not built yet which weights the other's leaves out of weight decay."""
    old, new = (getattr(one.optimizer, "inner_optimizer", one.optimizer) for one in (reference, model))
    if getattr(old, "_exclude_from_weight_decay_pattern", None) is not None:
        new._exclude_from_weight_decay_pattern = old._exclude_from_weight_decay_pattern
    excluded = getattr(old, "_exclude_from_weight_decay", None) or ()
    weights = reference.trainable_variables, model.trainable_variables
    if excluded and [weight.name for weight in weights[0]] == [weight.name for weight in weights[1]]:
        pairs = zip(*weights, strict=True)
        new._exclude_from_weight_decay = {new._var_key(twin) for one, twin in pairs if old._var_key(one) in excluded}


def _carry_attributes(model, reference):
    """Gives a model of a user's own class what the reference keeps, where it has not set that up by itself."""
    if type(model) is not type(reference) or type(model).__module__.startswith("keras."):
        return
    for name, value in vars(reference).items():
        is_plain = isinstance(value, bool | int | float | str)
        if name in _names_of_keras() or (name.startswith("_") and not is_plain):
            continue
        if is_plain or name not in vars(model):
            setattr(model, name, value)


@functools.cache
def _names_of_keras():
    """What every compiled Keras model keeps."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, inputs)
    model.compile(loss="mse", metrics=["mae"])
    names = {"history", "layers", "optimizer", "loss", *vars(model)}
    return frozenset(names)
