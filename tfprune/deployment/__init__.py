"""How does a ticket leave Keras: as which file, does it still say the same there, and may it be trusted as before?"""

from tfprune.deployment.confidence import reevaluate
from tfprune.deployment.exporting import FORMATS, export
from tfprune.deployment.loading import Exported, load_exported
from tfprune.deployment.tf_keras_twin import to_tf_keras

__all__ = ["FORMATS", "Exported", "export", "load_exported", "reevaluate", "to_tf_keras"]
