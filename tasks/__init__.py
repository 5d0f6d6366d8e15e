"""What is done: one module per stage of dvc.yaml, and the pure logic that they share.

Nothing here imports prefect, mlflow or dvc; ruff enforces it.
"""
