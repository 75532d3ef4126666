"""How does the learning rate of a trial fall?"""

import keras


@keras.saving.register_keras_serializable("tfprune")
class StepDecay(keras.optimizers.schedules.ExponentialDecay):
    """A learning rate that falls by a factor after each epoch, and stays where it is after the last one.

    A round that goes on from trained weights without rewinding the rate trains with the lowest one: fine-tuning, as
    Renda et al. 2020 have it.

    Args:
        rate: The learning rate of the first epoch.
        steps: Steps in an epoch.
        decay: The factor.
        epochs: Epochs with a rate of their own.

    Example:

    >>> float(StepDecay(0.1, steps=10, decay=0.5, epochs=3)(1000))
    0.025
    """

    def __init__(self, rate, steps, decay, epochs):
        """See the class."""
        super().__init__(rate, steps, decay, staircase=True)
        self.epochs = epochs

    def __call__(self, step):
        """Returns the learning rate of a step."""
        return super().__call__(keras.ops.minimum(step, self.decay_steps * self.epochs - 1))

    def get_config(self):
        """Returns what `__init__` takes."""
        return {
            "rate": self.initial_learning_rate,
            "steps": self.decay_steps,
            "decay": self.decay_rate,
            "epochs": self.epochs,
        }
