"""When it is done, and every effect on the world: DVC, MLflow, the release ledger, and one module per flow."""
