"""The model of a serving endpoint, as MLflow's "model from code"; job `publish_models` registers it with a version.

Does not belong here: what it computes (`crypto_assets.databricks.endpoint`).
"""

from pathlib import Path

from mlflow.models import set_model  # noqa: TID253 - it is loaded by MLflow only
from mlflow.pyfunc import PythonModel, PythonModelContext  # noqa: TID253

from crypto_assets.databricks import endpoint


class ServedModel(PythonModel):
    """Scores rows of features with one version."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the packed version; its files are checked against their recorded hash."""
        self._scorer = endpoint.load(Path(context.artifacts[endpoint.ARTIFACT]))

    def predict(self, context, model_input, params=None):  # noqa: ARG002 - MLflow takes type hints for its signature
        """One output row per row of features."""
        return self._scorer.predict(model_input)


set_model(ServedModel())
